"""Windows and tiles over videos, with a tiny model and with one that gives back what it gets."""

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coordtok.config.errors import CheckpointError, ConfigError, DataError
from coordtok.config.schema import TokenizerModelConfig
from coordtok.data.source import SourceVideo, open_video, resize_and_crop
from coordtok.evaluation.frame_range import FrameRange
from coordtok.evaluation.reconstruction import Decoding, Reconstruction, reconstruct
from coordtok.geometry.pixels import from_uint8, to_uint8
from coordtok.models.tokenizer import CoordTok

CONFIG = TokenizerModelConfig(
    frames=8,
    height=16,
    width=24,
    video_patch=(4, 8, 8),
    plane_size=(4, 2, 6),
    plane_patch=(2, 2, 3),
    plane_channels=4,
    decoder_patch=(2, 4, 8),
    dim=16,
    heads=2,
    video_layers=1,
    plane_layers=1,
    decoder_layers=1,
)
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
def video(tmp_path_factory: pytest.TempPathFactory, write_video: WriteVideo) -> SourceVideo:
    """20 frames of 45 x 70: two whole windows and a half one."""
    path = tmp_path_factory.mktemp("video") / "a.mkv"
    return open_video(write_video(path, 20, 45, 70, **LOSSLESS))


def joined(parts: Iterator[Reconstruction]) -> tuple[list[int], np.ndarray, np.ndarray]:
    kept = list(parts)
    frames = [frame for part in kept for frame in part.frames]
    return (
        frames,
        np.concatenate([part.source for part in kept]),
        np.concatenate([part.output for part in kept]),
    )


def test_windows_are_what_the_model_gives(model: CoordTok, video: SourceVideo) -> None:
    pictures = np.stack([resize_and_crop(frame, 16, 24) for frame in video.frames()])
    frames, source, output = joined(reconstruct(model, video))
    assert frames == list(range(20))
    np.testing.assert_array_equal(source, pictures)
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
    _, source, output = joined(parts)
    np.testing.assert_array_equal(source, pictures)
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
    numbers, source, output = joined(reconstruct(mirror, video))
    assert numbers == list(range(frames))
    np.testing.assert_array_equal(source, output)
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
    assert len(next(reconstruct(mirror, growing)).frames) == 2
    with pytest.raises(DataError, match="changes at frame 1"):
        next(reconstruct(mirror, growing, fit="tile"))


def test_options_that_make_no_sense(video: SourceVideo, model: CoordTok) -> None:
    with pytest.raises(ConfigError, match="fit is 'stretch'"):
        next(reconstruct(model, video, fit="stretch"))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch is 0"):
        Decoding(batch=0)
    with pytest.raises(ConfigError, match="points_per_pass is 0"):
        next(reconstruct(model, video, decoding=Decoding(points_per_pass=0)))
