"""Stored pictures as arrays: their planes as they are, or RGB by the numbers of `geometry.bt709`.

swscale makes RGB of many frames at once: a call for each would take longer than its pixels. Of its
ways to RGB, FFmpeg 8's new kernels are the quickest, and the same bits on every CPU. They know
nothing of a pixel but its own planes, so frames lie one after the other in rows of any length.

Shapes: T frames, F frames of a block, H rows, W columns; K bytes of a frame's planes, one after the
other.
"""

from collections.abc import Iterable, Iterator, Sequence

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from coordtok.video.pixel_formats import PIXEL_FORMATS, RgbGraph

Bytes = NDArray[np.uint8]

_BLOCK_PIXELS = 1 << 18
_ROW = 1024
"""Pixels in a row of a block: of rows that end within a vector swscale writes beyond the end."""


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
    """Turns pictures of one size and pixel format into RGB, a block of them at a time."""

    def __init__(self, height: int, width: int, pixel_format: str) -> None:
        self._shapes = plane_shapes(height, width, pixel_format)
        pixels = height * width
        count = max(1, _BLOCK_PIXELS // pixels)
        rows = -(-count * pixels // _ROW)
        self._block = av.VideoFrame(_ROW, rows, "yuv444p")
        self._block.colorspace, self._block.color_range = Colorspace.ITU709, ColorRange.MPEG
        assert all(plane.line_size == _ROW for plane in self._block.planes)
        self._to_rgb = RgbGraph(self._block)
        planes = [
            plane.reshape(-1)[: count * pixels].reshape(count, height, width)
            for plane in planes_of(self._block, [(rows, _ROW)] * 3)
        ]
        self._wider = None
        if self._shapes[1] != self._shapes[0]:
            self._wider = _Wider(count, *self._shapes[1], planes[1:])
            planes[1:] = self._wider.narrow
        for plane in planes:
            plane[...] = 0
        self._places = list(zip(*planes))

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
        if self._wider is not None:
            self._wider()
        rgb = self._to_rgb(self._block)
        assert rgb.shape[1] == 3 * _ROW
        video_FHW3.reshape(-1)[...] = rgb.reshape(-1)[: video_FHW3.size]


class _Wider:
    """Cb and Cr of 4:2:0 planes, `narrow`, to planes of all rows and columns, by weights of 3/4 and
    1/4 each way, rounded once; at a border the nearest stands for the next."""

    def __init__(self, frames: int, rows: int, columns: int, wide: Sequence[Bytes]) -> None:
        self.narrow = np.empty((2, frames, rows, columns), np.uint8)
        self._wide = wide
        self._levels, self._thrice = np.empty((2, *self.narrow.shape), np.int16)
        self._tall, self._tall_thrice, self._even, self._odd = np.empty(
            (4, 2, frames, 2 * rows, columns), np.int16
        )

    def __call__(self) -> None:
        self._levels[...] = self.narrow
        self._to_all_rows()
        self._to_all_columns()
        # The even columns in the lower byte of each number, the odd ones in the higher.
        self._even >>= 4
        self._odd &= -16
        self._odd <<= 4
        self._even |= self._odd
        for target, both in zip(self._wide, self._even.view(np.uint8)):
            target[...] = both[:, : target.shape[1], : target.shape[2]]

    def _to_all_rows(self) -> None:
        """Four times the levels."""
        here, thrice = self._levels, self._thrice
        np.multiply(here, 3, out=thrice)
        above, below = self._tall[..., 0::2, :], self._tall[..., 1::2, :]
        np.add(thrice[..., 1:, :], here[..., :-1, :], out=above[..., 1:, :])
        np.add(thrice[..., :-1, :], here[..., 1:, :], out=below[..., :-1, :])
        np.add(thrice[..., 0, :], here[..., 0, :], out=above[..., 0, :])
        np.add(thrice[..., -1, :], here[..., -1, :], out=below[..., -1, :])

    def _to_all_columns(self) -> None:
        """Sixteen times the levels, and half of one: over the ends of rows, which are mended."""
        here, thrice = self._tall, self._tall_thrice
        np.multiply(here, 3, out=thrice)
        thrice += 8
        flat, flat_thrice = here.reshape(-1), thrice.reshape(-1)
        np.add(flat_thrice[1:], flat[:-1], out=self._even.reshape(-1)[1:])
        np.add(flat_thrice[:-1], flat[1:], out=self._odd.reshape(-1)[:-1])
        np.add(thrice[..., 0], here[..., 0], out=self._even[..., 0])
        np.add(thrice[..., -1], here[..., -1], out=self._odd[..., -1])


def planes_of(picture: av.VideoFrame, shapes: Sequence[tuple[int, int]]) -> Iterator[Bytes]:
    """Its planes where they lie, without what lies beyond their width."""
    for plane, shape in zip(picture.planes, shapes):
        yield np.ndarray(shape, np.uint8, plane, strides=(plane.line_size, 1))  # type: ignore[arg-type]
