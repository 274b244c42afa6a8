"""Windows and tiles over videos, with a tiny model and with one that gives back what it gets."""

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coordtok.errors import CheckpointError, ConfigError, DataError
from coordtok.geometry.pixels import from_uint8, to_uint8
from coordtok.inference.frame_range import FrameRange
from coordtok.inference.reconstruct import (
    Decoding,
    Reconstruction,
    reconstruct,
)
from coordtok.inference.windows import frames_to_read
from coordtok.models.tokenizer import CoordTok
from coordtok.video.source import SourceVideo, open_video, resize_and_crop
from tests.support.tiny import DEEP as CONFIG

WriteVideo = Callable[..., Path]
LOSSLESS: dict[str, Any] = {"codec": "ffv1", "pixel_format": "bgr0", "container": "matroska"}


class Mirror:
    """Stands in for a tokenizer: its planes are the video itself. Notes what was asked of it."""

    config = CONFIG

    def __init__(self) -> None:
        self.real: list[int] = []
        self.decoded: list[list[int]] = []

    def encode(self, video: torch.Tensor, num_frames: Sequence[int]) -> torch.Tensor:
        assert video.shape[1:] == (*CONFIG.video_size, 3)
        self.real += num_frames
        return video

    def decode(self, planes: torch.Tensor, frames: Sequence[int], *_: Any, **__: Any):
        self.decoded += [list(frames)] * len(planes)
        return from_uint8(planes[:, list(frames)])


@pytest.fixture
def mirror() -> Any:
    return Mirror()


@pytest.fixture(scope="module")
def model() -> CoordTok:
    torch.manual_seed(0)
    return CoordTok(CONFIG).eval()


@pytest.fixture(scope="module")
def thin() -> CoordTok:
    """A model whose patches are one frame deep."""
    torch.manual_seed(0)
    return CoordTok(replace(CONFIG, decoder_patch=(1, 4, 8))).eval()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, write_video: WriteVideo) -> SourceVideo:
    """20 frames of 45 x 70: two whole windows and a half one."""
    path = tmp_path_factory.mktemp("video") / "a.mkv"
    return open_video(write_video(path, 20, 45, 70, **LOSSLESS))


def joined(parts: Iterator[Reconstruction]) -> tuple[list[int], np.ndarray, np.ndarray]:
    kept = list(parts)
    frames = [int(time) for part in kept for time in part.times]
    return (
        frames,
        np.concatenate([part.original for part in kept]),
        np.concatenate([part.output for part in kept]),
    )


def test_windows_are_what_the_model_gives(model: CoordTok, video: SourceVideo) -> None:
    pictures = np.stack([resize_and_crop(frame, 16, 24) for frame in video.frames()])
    frames, original, output = joined(reconstruct(model, video))
    assert frames == list(range(20))
    np.testing.assert_array_equal(original, pictures)
    for first in (0, 8, 16):
        real = min(8, 20 - first)
        clip = np.zeros((1, 8, 16, 24, 3), np.uint8)
        clip[0, :real] = pictures[first : first + real]
        pixels = model.decode(model.encode(torch.from_numpy(clip), [real]))
        expected = to_uint8(pixels)[0, :real].numpy()
        np.testing.assert_array_equal(output[first : first + real], expected)


@pytest.mark.parametrize("size", [(45, 70), (16, 24), (3, 5), (17, 24), (1, 60), (48, 72)])
def test_tiles_miss_no_pixel(
    tmp_path: Path, write_video: WriteVideo, mirror: Mirror, size: tuple[int, int]
) -> None:
    path = write_video(tmp_path / "a.mkv", 9, *size, **LOSSLESS)
    pictures = np.stack(list(open_video(path).frames()))
    parts = reconstruct(mirror, open_video(path), fit="tile", decoding=Decoding(batch=4))
    _, original, output = joined(parts)
    np.testing.assert_array_equal(original, pictures)
    np.testing.assert_array_equal(output, pictures)
    tiles = -(-size[0] // 16) * -(-size[1] // 24)
    assert mirror.real == [8] * tiles + [1] * tiles


def test_batches_of_tiles_change_nothing(model: CoordTok, video: SourceVideo) -> None:
    one, many = (
        joined(reconstruct(model, video, fit="tile", decoding=Decoding(batch=batch)))[2]
        for batch in (1, 5)
    )
    assert np.abs(one.astype(int) - many).max() <= 1


@pytest.mark.parametrize("fit", ["crop", "tile"])
@pytest.mark.parametrize("text", ["9", "0:20:7", "15:", "3:6", "17:20:2", "2:20:17"])
def test_chosen_frames_equal_those_of_the_whole(
    model: CoordTok, video: SourceVideo, fit: Any, text: str
) -> None:
    whole, some = (
        joined(reconstruct(model, video, fit=fit, frames=frames))
        for frames in (None, FrameRange.parse(text))
    )
    np.testing.assert_array_equal(some[1], whole[1][some[0]])
    assert np.abs(some[2].astype(int) - whole[2][some[0]]).max() <= 1


def test_only_what_is_wanted_is_read_encoded_and_decoded(
    mirror: Mirror, video: SourceVideo
) -> None:
    read = []
    wanted = FrameRange(1, 11, 5)  # 1, 6
    list(reconstruct(mirror, video, frames=wanted, on_read=lambda: read.append(None)))
    assert (len(read), mirror.real, mirror.decoded) == (8, [8], [[1, 6]])
    list(reconstruct(mirror, video, frames=FrameRange(17, 18)))
    assert (mirror.real, mirror.decoded) == ([8, 4], [[1, 6], [1]])


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 16])
def test_any_number_of_frames(
    tmp_path: Path, write_video: WriteVideo, mirror: Mirror, frames: int
) -> None:
    video = open_video(write_video(tmp_path / "a.mkv", frames, **LOSSLESS))
    numbers, original, output = joined(reconstruct(mirror, video))
    assert numbers == list(range(frames))
    np.testing.assert_array_equal(original, output)
    assert sum(mirror.real) == frames


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"pixel_aspect": Fraction(2)}, (48, 128)),
        ({"rotation": 90}, (64, 48)),
        ({"pixel_format": "yuv420p10le"}, (48, 64)),
        ({"codec": "png", "pixel_format": "rgba", "container": "mov"}, (48, 64)),
        ({"codec": "ffv1", "pixel_format": "yuva420p", "container": "matroska"}, (48, 64)),
        ({"codec": "ffv1", "pixel_format": "gray16le", "container": "matroska"}, (48, 64)),
        ({"height": 2000, "width": 3000}, (2000, 3000)),
    ],
)
def test_any_picture(
    tmp_path: Path, write_video: WriteVideo, mirror: Mirror, options: Any, size: tuple[int, int]
) -> None:
    video = open_video(write_video(tmp_path / "a", 1, **options))
    (cropped,) = reconstruct(mirror, video)
    assert cropped.output.shape == (1, 16, 24, 3)
    (tiled,) = reconstruct(mirror, video, fit="tile", decoding=Decoding(batch=64))
    assert tiled.output.shape == (1, *size, 3)


def test_memory_does_not_grow_with_the_length(
    tmp_path: Path, write_video: WriteVideo, mirror: Mirror
) -> None:
    peaks = []
    for frames in (32, 320):
        video = open_video(write_video(tmp_path / f"{frames}.mp4", frames))
        tracemalloc.start()
        for _ in reconstruct(mirror, video, fit="tile"):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]  # of ten times the frames


def whole_films(model: CoordTok, pictures: np.ndarray, starts: Sequence[int]) -> list[torch.Tensor]:
    """The planes of windows of 8 pictures, the last ones padded."""
    planes = []
    for first in starts:
        real = min(8, len(pictures) - first)
        clip = np.zeros((1, 8, 16, 24, 3), np.uint8)
        clip[0, :real] = pictures[first : first + real]
        planes.append(model.encode(torch.from_numpy(clip), [real]))
    return planes


@pytest.mark.parametrize("frames", [9, 15, 16, 20])
def test_times_between_frames_come_from_windows_that_share_one(
    tmp_path: Path, write_video: WriteVideo, thin: CoordTok, frames: int
) -> None:
    video = open_video(write_video(tmp_path / "a.mkv", frames, 16, 24, **LOSSLESS))
    pictures = np.stack(list(video.frames()))
    parts = list(reconstruct(thin, video, frames=FrameRange().at_rate("2")))
    times = [time for part in parts for time in part.times]
    assert times == [Fraction(half, 2) for half in range(2 * frames - 1)]
    held = np.concatenate([part.original for part in parts])
    np.testing.assert_array_equal(held, pictures[[int(time) for time in times]])
    starts = range(0, frames - 1, 7)
    assert sum(part.encoded for part in parts) == frames
    assert len(parts) == len(starts)
    with torch.no_grad():
        planes = whole_films(thin, pictures, starts)
    for part, first, each in zip(parts, starts, planes):
        assert first <= part.times[0] <= first + Fraction(1, 2)
        local = [time - first for time in part.times]
        expected = to_uint8(thin.decode(each, times=local))[0].numpy()
        assert np.abs(part.output.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("text", ["9:11", "0:20:7", "15:", "6:8", "7:9"])
def test_chosen_times_equal_those_of_the_whole(
    thin: CoordTok, video: SourceVideo, text: str
) -> None:
    whole, some = (
        {
            time: picture
            for part in reconstruct(thin, video, frames=frames.at_rate("4"))
            for time, picture in zip(part.times, part.output)
        }
        for frames in (FrameRange(), FrameRange.parse(text))
    )
    wanted = FrameRange.parse(text).at_rate("4")
    assert list(some) == [wanted.time(number) for number in wanted.within(0, 20)]
    for time in set(some) & set(whole):
        assert np.abs(some[time].astype(int) - whole[time]).max() <= 1
    assert set(some) <= set(whole)


@pytest.mark.parametrize(
    ("text", "read"), [("0:1", 8), ("1:7", 8), ("1:8", 8), ("1:9", 15), (":", 20)]
)
def test_no_more_is_read_than_times_need(
    thin: CoordTok, video: SourceVideo, text: str, read: int
) -> None:
    wanted, count = FrameRange.parse(text).at_rate("2"), []
    list(reconstruct(thin, video, frames=wanted, on_read=lambda: count.append(None)))
    assert len(count) == read
    assert frames_to_read(wanted, 8) in (read, None)


def test_models_without_times_between_frames(model: CoordTok, video: SourceVideo) -> None:
    single = CoordTok(replace(CONFIG, frames=1, video_patch=(1, 8, 8), decoder_patch=(1, 4, 8)))
    for each in (model, single):
        with pytest.raises(ConfigError, match="times between frames need a model of several"):
            next(reconstruct(each, video, frames=FrameRange().at_rate("2")))


class Endless(Mirror):
    """Needs more memory than the device has."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def decode(self, *_: Any, **__: Any):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_a_device_without_enough_memory(video: SourceVideo, error: Exception) -> None:
    with pytest.raises(ConfigError, match=r"hold 4 tiles .* lower --batch") as caught:
        next(reconstruct(Endless(error), video, fit="tile", decoding=Decoding(batch=4)))
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="shapes"):
        next(reconstruct(Endless(RuntimeError("shapes differ")), video))


class Huge(SourceVideo):
    """Its pictures would need more memory than any machine has; this one pixel stands for them."""

    def frames(self, fps: Fraction | None = None) -> Iterator[np.ndarray]:
        yield np.broadcast_to(np.zeros(3, np.uint8), (10**6, 10**6, 3))


def test_pictures_that_do_not_fit_into_memory(video: SourceVideo, mirror: Mirror) -> None:
    with pytest.raises(DataError, match=r"a\.mkv: its frames do not fit into memory; crop it"):
        next(reconstruct(mirror, Huge(video.path), fit="tile"))


def test_output_that_is_not_finite(model: CoordTok, video: SourceVideo) -> None:
    broken = CoordTok(CONFIG).eval()
    broken.load_state_dict(model.state_dict())
    torch.nn.init.constant_(broken.decoder.head.weight, torch.inf)
    with pytest.raises(CheckpointError, match="frames 0 to 7 is not finite") as caught:
        next(reconstruct(broken, video))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["20", "5:21", "100:140:5", "30:"])
def test_frames_beyond_the_end(mirror: Mirror, video: SourceVideo, text: str) -> None:
    with pytest.raises(DataError, match="the video has 20"):
        list(reconstruct(mirror, video, frames=FrameRange.parse(text)))


def test_a_video_that_breaks_off_names_itself(
    tmp_path: Path, write_video: WriteVideo, mirror: Mirror
) -> None:
    whole = write_video(tmp_path / "whole.mkv", 40, container="matroska").read_bytes()
    (tmp_path / "half.mkv").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"half\.mkv: (cut off|damaged)"):
        list(reconstruct(mirror, open_video(tmp_path / "half.mkv")))


class Growing(SourceVideo):
    """A video whose second frame is larger than its first."""

    def frames(self, fps: Fraction | None = None) -> Iterator[np.ndarray]:
        for height in (20, 30):
            yield np.zeros((height, 20, 3), np.uint8)


def test_sizes_that_change(video: SourceVideo, mirror: Mirror) -> None:
    growing = Growing(video.path)
    assert len(next(reconstruct(mirror, growing)).times) == 2
    with pytest.raises(DataError, match="changes at frame 1"):
        next(reconstruct(mirror, growing, fit="tile"))


def test_options_that_make_no_sense(video: SourceVideo, model: CoordTok) -> None:
    with pytest.raises(ConfigError, match="fit is 'stretch'"):
        next(reconstruct(model, video, fit="stretch"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch is 0"):
        Decoding(batch=0)
    with pytest.raises(ConfigError, match="points_per_pass is 0"):
        next(reconstruct(model, video, decoding=Decoding(points_per_pass=0)))
