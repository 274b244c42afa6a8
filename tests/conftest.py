"""Fixtures shared by all tests: video files, good and bad, made with PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

pytest_plugins = ["tests.support.shards", "tests.support.clip_shards", "tests.support.runs"]


def _picture(number: int, height: int, width: int) -> np.ndarray:
    """A picture whose top-left quarter is red, the rest a grey that tells its number."""
    pixels = np.full((height, width, 3), 20 + number * 5 % 200, np.uint8)
    pixels[: height // 2, : width // 2] = (220, 30, 30)
    return pixels


def _write_video(
    path: Path,
    frames: int = 20,
    height: int = 48,
    width: int = 64,
    *,
    rate: Fraction | int = 24,
    codec: str = "libx264",
    pixel_format: str = "yuv444p",
    times: list[int] | None = None,
    rotation: float | None = None,
    pixel_aspect: Fraction | None = None,
    transfer: int | None = None,
    container: str | None = None,
    sound: bool = False,
) -> Path:
    """Write `frames` pictures; `times` are their presentation times in units of 1 / rate; `sound`
    is silence of the same length."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file, av.open(file, "w", format=container or "mp4") as output:
        stream = output.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = height, width, pixel_format
        stream.codec_context.thread_count = 1
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if transfer is not None:
            stream.codec_context.color_trc = transfer
        if rotation is not None:
            stream.set_display_rotation(rotation)
        silence = output.add_stream("pcm_s16le", rate=8000, layout="mono") if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(_picture(number, height, width), format="rgb24")
            frame.pts = times[number] if times else number
            output.mux(stream.encode(frame))
            if silence is not None:
                part = np.zeros((1, round(8000 / rate)), np.int16)
                heard = av.AudioFrame.from_ndarray(part, "s16", "mono")
                heard.sample_rate = 8000
                output.mux(silence.encode(heard))
        output.mux(stream.encode(None))
    return path


def _write_sound(path: Path, cover: bool = False) -> Path:
    """A file with sound alone, or with a cover picture, which ffmpeg calls a video stream."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as output:
        sound = output.add_stream("aac", rate=16000)
        art = None
        if cover:
            art = output.add_stream("mjpeg", rate=1)
            art.height, art.width, art.pix_fmt = 32, 32, "yuvj420p"
            art.disposition = av.stream.Disposition.attached_pic
        for number in range(10):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 16000, number * 1024
            output.mux(sound.encode(frame))
        output.mux(sound.encode(None))
        if art is not None:
            image = av.VideoFrame.from_ndarray(_picture(0, 32, 32), format="rgb24")
            output.mux(art.encode(image))
            output.mux(art.encode(None))
    return path


@pytest.fixture(scope="session")
def write_video():
    """Function (path, frames, height, width, ...) that writes a video file."""
    return _write_video


@pytest.fixture(scope="session")
def write_sound():
    """Function (path, cover) that writes a file without a film."""
    return _write_sound
