"""RGB to the planes that are stored and back, exactly: with swscale's usual settings it is not.

Everything stored is BT.709 in limited range. Without these flags swscale takes shortcuts that cost
1 to 9 dB of luma, or makes pictures up to 2 levels too dark; BITEXACT makes every CPU give the same
numbers.
"""

from fractions import Fraction

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

PIXEL_FORMATS = ("yuv420p", "yuv444p")
"""Of stored planes."""
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
_SHRINK_CHROMA = Interpolation.AREA | Interpolation.FULL_CHR_H_INP | _EXACT
_WIDEN_PIXELS = Interpolation.BILINEAR | _EXACT
_TO_RGB = "sws_dither=none:threads=1:flags=bilinear+full_chroma_int+accurate_rnd+bitexact+unstable"
"""By FFmpeg 8's new kernels, still called unstable: they round exactly, in a third of the time."""


class RgbGraph:
    """Pictures like `first` to packed RGB by swscale, in ffmpeg's `scale` filter, because only
    there dither can be turned off."""

    def __init__(self, first: av.VideoFrame) -> None:
        self._graph = Graph()
        self._graph.threads = 1  # a fork would wait for those of a graph that it frees
        self._source = self._graph.add_buffer(
            width=first.width, height=first.height, format=first.format, time_base=Fraction(1)
        )
        self._sink = self._graph.add("buffersink")
        scale, packed = self._graph.add("scale", _TO_RGB), self._graph.add("format", "rgb24")
        self._graph.link_nodes(self._source, scale, packed, self._sink).configure()

    def __call__(self, picture: av.VideoFrame) -> NDArray[np.uint8]:
        """Its rows (H, 3 W and what lies beyond), valid until the next call."""
        self._source.push(picture)
        packed = self._sink.pull()
        assert isinstance(packed, av.VideoFrame)
        self._packed = packed
        return _rows(packed.planes[0])


def as_planes(
    reformatter: VideoReformatter, pixels_HW3: NDArray[np.uint8], pixel_format: str, number: int
) -> av.VideoFrame:
    """Frame `number` of a stream, from RGB: BT.709, limited range, one of `PIXEL_FORMATS`."""
    picture = reformatter.reformat(
        av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_HW3), format="rgb24"),
        format=pixel_format,
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
        interpolation=_SHRINK_CHROMA,
        threads=1,
    )
    picture.pts = number
    return picture


class StoredToRgb:
    """Turns stored pictures like `first` into RGB, one after the other."""

    def __init__(self, first: av.VideoFrame) -> None:
        self._to_rgb = RgbGraph(first)

    def __call__(self, picture: av.VideoFrame) -> NDArray[np.uint8]:
        """(H, W, 3), valid until the next call."""
        height, width = picture.height, picture.width
        return self._to_rgb(picture)[:height, : width * 3].reshape(height, width, 3)


class AnyToRgb:
    """Turns pictures of any pixel format into RGB with square pixels. By way of planes: that is
    twice as fast."""

    def __init__(self, pixel_aspect: Fraction) -> None:
        """pixel_aspect: width of a pixel over its height."""
        self._pixel_aspect = pixel_aspect
        self._to_planes, self._to_packed = VideoReformatter(), VideoReformatter()

    def __call__(self, picture: av.VideoFrame) -> NDArray[np.uint8]:
        """(H, W, 3)."""
        width = max(1, round(picture.width * self._pixel_aspect))
        planes = self._to_planes.reformat(
            picture, width=width, format="gbrp", interpolation=_WIDEN_PIXELS, threads=1
        )
        packed = self._to_packed.reformat(planes, format="rgb24", threads=1)
        return np.asarray(packed.to_ndarray(), dtype=np.uint8)


def form(picture: av.VideoFrame) -> tuple[int, int, str]:
    """(H, W, pixel format): what all pictures of a stored video share."""
    return picture.height, picture.width, picture.format.name


def _rows(plane: av.video.plane.VideoPlane) -> NDArray[np.uint8]:
    """A plane's memory, (rows, bytes in a row): writable, and longer than the picture is wide."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
