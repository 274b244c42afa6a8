import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from coordtok.errors import DataError
from coordtok.video.mp4 import Mp4Writer, write_mp4
from coordtok.video.source import open_video

ROOT = Path(__file__).parents[2]


def smooth(frames: int, height: int, width: int) -> np.ndarray:
    """Coloured slopes that move a little from frame to frame."""
    t, y, x = np.meshgrid(np.arange(frames), np.arange(height), np.arange(width), indexing="ij")
    return np.stack([30 + 4 * t + x, 200 - y + t, 90 + x - y], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "planes"),
    [(32, 48, "yuv420p"), (31, 48, "yuv444p"), (32, 47, "yuv444p"), (1, 1, "yuv444p")],
)
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001)])
def test_a_film_comes_back(
    tmp_path: Path, height: int, width: int, planes: str, fps: Fraction
) -> None:
    film = smooth(9, height, width)
    with Mp4Writer(tmp_path / "a.mp4", fps) as writer:
        for picture in film:
            writer.write(picture)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.frames, stream.pix_fmt) == (fps, 9, planes)
    back = np.stack(list(open_video(tmp_path / "a.mp4").frames()))
    assert back.shape == film.shape
    assert np.abs(back.astype(int) - film).mean() < 2


def test_the_same_pictures_become_the_same_file(tmp_path: Path) -> None:
    """Whatever lay in memory before."""
    rng = np.random.default_rng(0)
    film = smooth(16, 64, 64) + rng.integers(0, 30, (16, 8, 8, 3), np.uint8).repeat(8, 1).repeat(
        8, 2
    )
    files = set()
    for number in range(30):
        write_mp4(tmp_path / "a.mp4", film, Fraction(25))
        files.add((tmp_path / "a.mp4").read_bytes())
        write_mp4(
            tmp_path / "b.mp4",
            rng.integers(0, 256, film.shape, np.uint8)[: number % 5 + 1],
            Fraction(25),
        )
    assert len(files) == 1


def test_names_that_look_like_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Mp4Writer(Path("pipe:1"), Fraction(5)) as writer:
        writer.write(smooth(1, 16, 16)[0])
    assert len(list(open_video(tmp_path / "pipe:1").frames())) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"cannot write .*a\.mp4"),
        Mp4Writer(tmp_path / "no" / "a.mp4", Fraction(5)),
    ):
        pass


def test_errors_name_what_was_asked_for_and_not_the_partial_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_mp4(tmp_path / "no" / "a.mp4", smooth(1, 16, 16), Fraction(5))
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'no' / 'a.mp4'}: ")
    (tmp_path / "b.mp4").mkdir()
    with pytest.raises(OSError) as refused:
        write_mp4(tmp_path / "b.mp4", smooth(1, 16, 16), Fraction(5))
    assert (refused.value.filename, refused.value.filename2) == (str(tmp_path / "b.mp4"), None)


def test_a_size_that_h264_does_not_have(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"cannot write .*smaller") as caught,
        Mp4Writer(tmp_path / "a.mp4", Fraction(5)) as writer,
    ):
        writer.write(np.zeros((2, 40000, 3), np.uint8))
    assert "\n" not in str(caught.value)


def test_an_error_inside_passes_through(tmp_path: Path) -> None:
    def fail() -> None:
        with Mp4Writer(tmp_path / "a.mp4", Fraction(5)) as writer:
            writer.write(smooth(1, 16, 16)[0])
            raise KeyError

    with pytest.raises(KeyError):
        fail()


def test_a_full_disk(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from fractions import Fraction
from pathlib import Path
import numpy as np
from coordtok.video.mp4 import Mp4Writer, write_mp4
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, {resource.RLIM_INFINITY}))
noise = np.random.default_rng(0)
with Mp4Writer(Path({str(tmp_path / "a.mp4")!r}), Fraction(5)) as writer:
    for _ in range(60):
        writer.write(noise.integers(0, 256, (64, 64, 3), np.uint8))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("coordtok.errors.DataError: cannot write"), done.stderr
