"""load_video and save_video: frames, sizes and rates, and what is told on one line."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from coordtok import load_video, save_video
from coordtok.errors import ConfigError, DataError
from coordtok.geometry.pixels import from_uint8
from coordtok.inference import video_files
from coordtok.video.source import open_video

FRAMES = 12


def ramp() -> torch.Tensor:
    """(T, H, W, 3), 10 brighter with every frame."""
    return (10 * torch.arange(FRAMES)).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 32, 48, 3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "ramp.mp4"
    save_video(path, ramp(), fps=Fraction(24))
    return path


def levels(video: torch.Tensor) -> list[int]:
    """The number of the frame that each frame of `ramp` is."""
    return video.float().mean((1, 2, 3)).div(10).round().int().tolist()


def test_a_saved_video_is_loaded(clip: Path) -> None:
    video = load_video(clip)
    assert (video.shape, video.dtype) == (ramp().shape, torch.uint8)
    assert (video.int() - ramp().int()).abs().max() <= 2
    assert open_video(clip).fps == 24


def test_frames_size_and_rate_can_be_chosen(clip: Path) -> None:
    part = load_video(clip, size=(16, 16), start=3, frames=4)
    assert part.shape == (4, 16, 16, 3)
    assert levels(part) == [3, 4, 5, 6]
    assert levels(load_video(clip, start=10, frames=9)) == [10, 11]
    assert levels(load_video(clip, fps=12)) == [0, 2, 4, 6, 8, 10]


def test_arrays_and_floats_are_saved_as_their_uint8(tmp_path: Path) -> None:
    for number, video in enumerate([ramp(), ramp().numpy(), from_uint8(ramp())]):
        save_video(tmp_path / f"{number}.mp4", video)
    files = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == 1


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (torch.zeros(1, 2, 4, 4, 3), r"shape \(1, 2, 4, 4, 3\); give one clip"),
        (torch.zeros(2, 4, 4, 3, dtype=torch.int32), "video is torch.int32; give uint8"),
        (torch.full((2, 4, 4, 3), 200.0), "from 200 to 200; float pixels are in"),
        (np.full((2, 4, 4, 3), np.nan, np.float32), "from nan to nan"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path: Path, video: torch.Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        save_video(tmp_path / "x.mp4", video)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"start": 12}, DataError, "ends before frame 12"),
        ({"start": -1}, ConfigError, "start is -1"),
        ({"frames": 0}, ConfigError, "frames 0"),
        ({"size": (16, 0)}, ConfigError, r"size is \(16, 0\)"),
        ({"fps": float("nan")}, ConfigError, "fps is nan"),
    ],
)
def test_what_a_video_has_not_is_told(clip: Path, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        load_video(clip, **options)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone.mp4", Path(__file__)):
        with pytest.raises(DataError, match=path.name):
            load_video(path)
    with pytest.raises(DataError, match=r"gone.*nor|cannot write|gone"):
        save_video(tmp_path / "gone/x.mp4", ramp())
    with pytest.raises(ConfigError, match="fps is 0"):
        save_video(tmp_path / "x.mp4", ramp(), fps=0)


def test_a_film_larger_than_the_memory_is_refused_before_it_fills_it(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_files, "_SHARE_OF_MEMORY", 1e-9)
    with pytest.raises(DataError, match="does not fit into memory; take fewer frames"):
        load_video(clip)
