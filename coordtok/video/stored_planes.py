"""Stored pictures as arrays: their planes as they are, or RGB by the integers of `geometry.bt709`.

RGB is made by swscale, many frames at a time, one above the other in a picture: a call for each
would take longer than its pixels. Of swscale's ways to RGB, that to planes is both quick and in
integers that are the same on every CPU.

Shapes: T frames, F frames of a block, H rows, W columns; K bytes of a frame's planes, one after the
other.
"""

from collections.abc import Iterable, Iterator, Sequence

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from coordtok.geometry.bt709 import MOST_CHROMA, MOST_LUMA
from coordtok.video.pixel_formats import PIXEL_FORMATS, RgbGraph

Bytes = NDArray[np.uint8]

_BLOCK_PIXELS = 1 << 18
_COLUMNS = 64
"""A block's width is a multiple of it, so that swscale handles whole vectors and no rest of a row.
"""


def is_ours(picture: av.VideoFrame) -> bool:
    """Whether its planes are as the builder stores them: 4:2:0 or 4:4:4, BT.709, limited range."""
    return (
        picture.format.name in PIXEL_FORMATS
        and picture.colorspace == Colorspace.ITU709
        and picture.color_range == ColorRange.MPEG
    )


def plane_shapes(height: int, width: int, pixel_format: str) -> tuple[tuple[int, int], ...]:
    """(rows, columns) of Y', Cb and Cr."""
    halved = pixel_format == "yuv420p"
    chroma = (-(-height // 2), -(-width // 2)) if halved else (height, width)
    return (height, width), chroma, chroma


def plane_bytes(height: int, width: int, pixel_format: str) -> int:
    """K."""
    return sum(rows * columns for rows, columns in plane_shapes(height, width, pixel_format))


def copy_planes(picture: av.VideoFrame, shapes: Sequence[tuple[int, int]], frame_K: Bytes) -> None:
    """The planes of a picture, one after the other."""
    at = 0
    for plane in planes_of(picture, shapes):
        frame_K[at : at + plane.size].reshape(plane.shape)[...] = plane
        at += plane.size


class PlanesToRgb:
    """Turns pictures of one size and pixel format into RGB, a block of them at a time.

    In the block every frame has its first and last row of Cb and Cr twice, and the last column too
    where the block is wider: so no other frame has a part in its colours.
    """

    def __init__(self, height: int, width: int, pixel_format: str) -> None:
        self._shapes = plane_shapes(height, width, pixel_format)
        self._step = step = 2 if pixel_format == "yuv420p" else 1
        rows, columns = self._shapes[1][0] + 2, -(-width // _COLUMNS) * _COLUMNS
        count = max(1, _BLOCK_PIXELS // (height * width))
        self._block = av.VideoFrame(columns, count * step * rows, pixel_format)
        self._block.colorspace, self._block.color_range = Colorspace.ITU709, ColorRange.MPEG
        self._to_rgb = RgbGraph(self._block, in_integers=True)
        room = [(count * step * rows, columns), *[(count * rows, columns // step)] * 2]
        self._luma, *self._chroma = (
            plane.reshape(count, -1, plane.shape[1]) for plane in planes_of(self._block, room)
        )
        for plane in (self._luma, *self._chroma):
            plane[...] = 0
        # Of the same shape: numpy takes a lowest of an array and a number fifteen times as slowly.
        self._most_luma = np.full_like(self._luma, MOST_LUMA)
        self._most_chroma = np.full_like(self._chroma[0], MOST_CHROMA)
        inside = [self._luma[:, step:], *(plane[:, 1:] for plane in self._chroma)]
        self._places = [
            [plane[:h, :w] for plane, (h, w) in zip(frame, self._shapes)] for frame in zip(*inside)
        ]

    def __call__(self, pictures: Iterable[av.VideoFrame], video_THW3: Bytes) -> int:
        """Fill a video with decoded pictures; how many there were."""
        count = place = 0
        for count, picture in enumerate(pictures, 1):
            for target, plane in zip(self._places[place], planes_of(picture, self._shapes)):
                target[...] = plane
            place += 1
            if place == len(self._places):
                self._finish(video_THW3[count - place : count])
                place = 0
        if place:
            self._finish(video_THW3[count - place : count])
        return count

    def _finish(self, video_FHW3: Bytes) -> None:
        """Convert the frames of the block; of a last one also what an earlier one left."""
        _, columns = self._shapes[1]
        np.minimum(self._luma, self._most_luma, out=self._luma)
        for plane in self._chroma:
            np.minimum(plane, self._most_chroma, out=plane)
            plane[:, [0, -1]] = plane[:, [1, -2]]
            plane[..., columns : columns + 1] = plane[..., columns - 1 : columns]
        rows_RL = self._to_rgb(self._block)
        frames_FRL = rows_RL.reshape(len(self._places), -1, rows_RL.shape[1])[: len(video_FHW3)]
        height, width = self._shapes[0]
        step = self._step
        found = frames_FRL[:, step : step + height, : 3 * width]
        video_FHW3.reshape(found.shape)[...] = found


def planes_of(picture: av.VideoFrame, shapes: Sequence[tuple[int, int]]) -> Iterator[Bytes]:
    """Its planes where they lie, without what lies beyond their width."""
    for plane, shape in zip(picture.planes, shapes):
        yield np.ndarray(shape, np.uint8, plane, strides=(plane.line_size, 1))  # type: ignore[arg-type]
