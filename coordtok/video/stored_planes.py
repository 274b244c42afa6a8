"""Stored pictures as arrays: their planes as they are, or RGB by the integers of `geometry.bt709`.

numpy keeps to 16 bits, some frames at a time that stay in the cache: that takes half the time of 32
bits. With any constant c, and the offsets of the planes and multiples of 256 put into it,

    (298 y + 459 v + c) >> 8             =  y + 2 v + ((42 y - 53 v + c) >> 8)
    (298 y + 541 u + c) >> 8             =  y + 2 u + ((42 y + 29 u + c) >> 8)
    (596 y - 109 u - 273 v + c) >> 9     =  (2 y - v + ((84 y - 109 u - 17 v + c) >> 8)) >> 1

Shapes: T frames, F frames of a block, H rows, W columns; K bytes of a frame's planes, one after the
other.
"""

from collections.abc import Iterable, Iterator, Sequence

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from coordtok.geometry.bt709 import (
    BLUE_U,
    CHROMA_OFFSET,
    GREEN_U,
    GREEN_V,
    LUMA,
    LUMA_OFFSET,
    RED_V,
    ROUND,
)
from coordtok.video.pixel_formats import PIXEL_FORMATS, RgbGraph

Bytes = NDArray[np.uint8]

_BLOCK_PIXELS = 1 << 17
_ROW = 1024
_GREEN = 272 - LUMA_OFFSET * 2 * LUMA + CHROMA_OFFSET * (GREEN_U + GREEN_V)
_GREEN_AT = 56
"""So much below itself green is summed up, or loud colours would pass 2^15."""


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
    """Turns frames of one size and pixel format into RGB, a block of them at a time."""

    def __init__(self, height: int, width: int, pixel_format: str) -> None:
        self._shapes = plane_shapes(height, width, pixel_format)
        self._block = max(1, _BLOCK_PIXELS // (height * width))
        self._stored = [np.empty((self._block, *shape), np.uint8) for shape in self._shapes]
        self._places = list(zip(*self._stored))
        room = np.empty((6, self._block, height, width), np.int16)
        self._yuv, self._scratch = list(room[:3]), room[3:]
        self._wider = None
        if self._shapes[1] != self._shapes[0]:
            self._wider = _Wider(self._block, *self._shapes[1])
            self._yuv = [room[0], *self._wider.wide[:, :, :height, :width]]
        self._interleaver = _Interleaver(room[0].size)

    def pictures(self, decoded: Iterable[av.VideoFrame], video_THW3: Bytes) -> int:
        """Fill a video with decoded pictures; how many there were."""
        count = place = 0
        for count, picture in enumerate(decoded, 1):
            for target, plane in zip(self._places[place], planes_of(picture, self._shapes)):
                target[...] = plane
            place += 1
            if place == self._block:
                self._finish(video_THW3[count - place : count])
                place = 0
        if place:
            self._finish(video_THW3[count - place : count])
        return count

    def planes(self, planes_TK: Bytes, video_THW3: Bytes) -> None:
        """Fill a video with frames whose planes lie one after the other."""
        ends = np.cumsum([rows * columns for rows, columns in self._shapes])[:-1]
        for first in range(0, len(planes_TK), self._block):
            block = planes_TK[first : first + self._block]
            for targets, frame_K in zip(self._places, block):
                for target, plane in zip(targets, np.split(frame_K, ends)):
                    target[...] = plane.reshape(target.shape)
            self._finish(video_THW3[first : first + len(block)])

    def _finish(self, video_FHW3: Bytes) -> None:
        """Convert the frames of a block; of a last one also what an earlier one left."""
        narrow = self._yuv if self._wider is None else [self._yuv[0], *self._wider.narrow]
        for target, stored in zip(narrow, self._stored):
            target[...] = stored
        if self._wider is not None:
            self._wider()
        for plane, colour in zip(self._interleaver.planes, self._colours()):
            np.copyto(plane, colour.reshape(-1), casting="unsafe")
        self._interleaver.put(video_FHW3)

    def _colours(self) -> Iterator[NDArray[np.int16]]:
        """R, B and G, one at a time: 0 to 255 in the lower byte of each number."""
        (y, u, v), (base, part, colour) = self._yuv, self._scratch
        np.multiply(y, LUMA - 256, out=base)
        for by, factor in ((v, RED_V), (u, BLUE_U)):
            constant = ROUND - LUMA_OFFSET * LUMA - CHROMA_OFFSET * factor + 256 * 256
            np.multiply(by, factor - 512, out=colour)
            colour += base
            colour += constant
            colour >>= 8
            colour += y
            colour += by
            colour += by
            yield np.clip(colour, 256, 511, out=colour)
        np.multiply(u, GREEN_U, out=part)
        base += base
        base -= part
        np.multiply(v, GREEN_V - 256, out=part)
        base -= part
        base += _GREEN - 512 * _GREEN_AT
        base >>= 8
        base += y
        base += y
        base -= v
        base >>= 1
        np.clip(base, -_GREEN_AT, 255 - _GREEN_AT, out=base)
        base += _GREEN_AT
        yield base


class _Wider:
    """Cb and Cr of 4:2:0 planes, `narrow`, to `wide`: (2, F, rows, columns) to twice as many rows
    and columns."""

    def __init__(self, frames: int, rows: int, columns: int) -> None:
        self.narrow = np.empty((2, frames, rows, columns), np.int16)
        self._half = np.empty((2, frames, rows, 2 * columns), np.int16)
        self.wide = np.empty((2, frames, 2 * rows, 2 * columns), np.int16)

    def __call__(self) -> None:
        half, wide = self._half, self.wide
        _double(self.narrow, half[..., 0::2], half[..., 1::2], axis=3)
        _double(half, wide[:, :, 0::2], wide[:, :, 1::2], axis=2)
        wide += 8
        wide >>= 4


class _Interleaver:
    """Three planes of colours to pixels, by swscale, in a third of numpy's time: bytes change their
    places and nothing else. Always in rows of `_ROW` pixels, wherever those of a frame end: it
    handles whole vectors, also beyond the end of other rows."""

    def __init__(self, pixels: int) -> None:
        rows = -(-pixels // _ROW)
        gbrp = av.VideoFormat("gbrp")
        self._to_rgb = RgbGraph(_ROW, rows, gbrp, "accurate_rnd+bitexact")
        self._picture = av.VideoFrame(_ROW, rows, "gbrp")
        self._picture.color_range = ColorRange.JPEG
        green, blue, red = planes_of(self._picture, [(rows, _ROW)] * 3)
        self.planes = [plane.reshape(-1)[:pixels] for plane in (red, blue, green)]

    def put(self, video_FHW3: Bytes) -> None:
        """Fill a video with the pixels of `planes`."""
        packed = self._to_rgb(self._picture)
        pixels = np.frombuffer(packed.planes[0], np.uint8)  # type: ignore[call-overload]
        assert packed.planes[0].line_size == 3 * _ROW
        video_FHW3.reshape(-1)[...] = pixels[: video_FHW3.size]


def _double(
    narrow: NDArray[np.int16], even: NDArray[np.int16], odd: NDArray[np.int16], axis: int
) -> None:
    """Twice as many samples along an axis, each 3 of the nearest and 1 of the next; at the border
    the nearest stands for the next."""
    thrice = 3 * narrow
    here, even, odd, thrice = (np.moveaxis(each, axis, 0) for each in (narrow, even, odd, thrice))
    np.add(thrice[1:], here[:-1], out=even[1:])
    np.add(thrice[0], here[0], out=even[0])
    np.add(thrice[:-1], here[1:], out=odd[:-1])
    np.add(thrice[-1], here[-1], out=odd[-1])


def planes_of(picture: av.VideoFrame, shapes: Sequence[tuple[int, int]]) -> Iterator[Bytes]:
    """Its planes where they lie, without what lies beyond their width."""
    for plane, shape in zip(picture.planes, shapes):
        yield np.ndarray(shape, np.uint8, plane, strides=(plane.line_size, 1))  # type: ignore[arg-type]
