"""A video file as a tensor, and a tensor as a video file: what goes into a tokenizer by hand, and
what comes out.

Whole clips are in memory here; `inference.reconstruct` takes videos of any length.

Shapes: T frames, H rows, W columns, 3 colours (RGB).
"""

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from coordtok.errors import ConfigError, DataError
from coordtok.geometry.pixels import to_uint8
from coordtok.models.checks import check_range
from coordtok.video.codec import UnreadableVideo
from coordtok.video.mp4 import write_mp4
from coordtok.video.source import Picture, open_video, resize_and_crop

_SHARE_OF_MEMORY = 0.25
"""Of the machine's, for the frames of one video, which are there twice for a moment."""


def load_video(
    path: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    start: int = 0,
    frames: int | None = None,
    fps: float | Fraction | None = None,
) -> torch.Tensor:
    """Frames of any video file that ffmpeg reads, upright, (T, H, W, 3) uint8.

    size: the (H, W) that every frame is scaled to cover and cropped to; None keeps the file's.
    start, frames: how many frames from which one on, fewer where the video ends before that; all
    by default. fps: the steady rate that frames are taken at; None takes every stored frame.

    Raises:
        ConfigError: a size, start, number or rate that no video has.
        DataError: the file cannot be read, ends before `start`, changes its size while `size` is
            None, or does not fit into memory.
    """
    _check_request(size, start, frames, fps)
    stop = None if frames is None else start + frames
    try:
        pictures = open_video(path).frames(None if fps is None else Fraction(fps))
        held = list(_fitting(islice(pictures, start, stop), size, path))
    except UnreadableVideo as error:
        raise DataError(f"{path}: {error}; name a video that plays to its end") from None
    if not held:
        raise DataError(f"{path} ends before frame {start}, counted from 0; start earlier")
    return torch.from_numpy(np.stack(held))


def save_video(
    path: str | os.PathLike[str],
    video: torch.Tensor | NDArray[np.uint8] | NDArray[np.floating],
    fps: float | Fraction = 25,
) -> None:
    """Write a video (T, H, W, 3), uint8 or float in [-1, 1] as `CoordTok.decode` gives it, as an
    mp4 in H.264 at `path`, which is replaced once the new file is whole.

    Raises:
        ConfigError: a rate that is not above 0.
        DataError: another shape, type or range, or the file cannot be written.
    """
    if not 0 < fps < float("inf"):
        raise ConfigError(f"fps is {fps}; give frames a second, above 0")
    video_THW3 = torch.as_tensor(video)
    if video_THW3.ndim != 4 or video_THW3.shape[-1] != 3 or 0 in video_THW3.shape:
        raise DataError(
            f"video has shape {tuple(video_THW3.shape)}; give one clip, (T, H, W, 3): video[0] "
            "where it is a batch"
        )
    if video_THW3.is_floating_point():
        check_range(video_THW3)
        video_THW3 = to_uint8(video_THW3)
    if video_THW3.dtype != torch.uint8:
        raise DataError(f"video is {video_THW3.dtype}; give uint8, or float in [-1, 1]")
    write_mp4(Path(path), video_THW3.cpu().numpy(), Fraction(fps))


def _check_request(
    size: tuple[int, int] | None, start: int, frames: int | None, fps: float | Fraction | None
) -> None:
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ConfigError(f"size is {size}; give (H, W), both at least 1")
    if start < 0 or (frames is not None and frames < 1):
        raise ConfigError(f"start is {start} and frames {frames}; from frame 0 on, at least 1")
    if fps is not None and not 0 < fps < float("inf"):
        raise ConfigError(f"fps is {fps}; give frames a second, above 0")


def _fitting(
    pictures: Iterator[Picture], size: tuple[int, int] | None, path: object
) -> Iterator[Picture]:
    """The pictures at `size`, all of one size and not too many for the memory."""
    room = _SHARE_OF_MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    shape = None
    for number, picture in enumerate(pictures):
        fitted = picture if size is None else resize_and_crop(picture, *size)
        shape = shape or fitted.shape
        if fitted.shape != shape:
            raise DataError(f"{path}: its size changes after {number} frames; give a size")
        if (number + 1) * fitted.nbytes > room:
            raise DataError(f"{path} does not fit into memory; take fewer frames or a smaller size")
        yield fitted
