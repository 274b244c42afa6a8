"""A window of a stored video, decoded: as RGB or as the planes that are stored.

This is the loader's hot path. It starts at the key frame at or before the window, so that a window
is bit for bit the same frames of a full decode. Of files as the builder writes them the tables say
where frames lie; of others all packets up to the window are read, which gives the time of every
frame without trusting the container's frame count.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import av
import numpy as np

from coordtok.errors import DataError
from coordtok.video.codec import (
    Frames,
    UnreadableVideo,
    check_size,
    each_packet,
    open_mp4,
    parsing,
)
from coordtok.video.pixel_formats import StoredToRgb, form
from coordtok.video.sample_table import SampleTable, read_sample_table
from coordtok.video.stored_planes import (
    PlanesToRgb,
    copy_planes,
    is_ours,
    plane_bytes,
    plane_shapes,
)

Room = Callable[[tuple[int, ...]], Frames]
"""Makes the array of a shape, with any contents."""

_MOST_REORDERED = 32  # packets that a frame may come after its turn; H.264 allows 16
_MOST_PIXELS = 1 << 26
"""Of a stored picture (8192 x 8192): the decoder makes room for several before one can be seen."""


class OtherPlanes(DataError):
    """A readable video whose planes are not those that were asked for."""


@dataclass(frozen=True)
class Window:
    """`count` frames from `start` on; `size`: the (H, W) that they must have, or None."""

    start: int
    count: int
    size: tuple[int, int] | None


def _new(shape: tuple[int, ...]) -> Frames:
    return np.empty(shape, np.uint8)


def decode_frames(
    data: bytes,
    start: int,
    count: int,
    size: tuple[int, int] | None = None,
    room: Room = _new,
) -> Frames:
    """Frames start ... start + count - 1 of an encoded video, (count, H, W, 3) RGB: by the numbers
    of `geometry.bt709` where its planes are as `encode_h264` stores them, else by swscale.

    Args:
        size: the (H, W) that frames must have, compared before room is made for them; None: any.

    Raises:
        UnreadableVideo: damaged, fewer frames than that, or frames of another size.
    """
    window = Window(start, count, size)
    return _decode(data, window, lambda decoded: _to_rgb(decoded, window, room))


def decode_planes(
    data: bytes,
    start: int,
    count: int,
    size: tuple[int, int],
    pixel_format: str,
    room: Room = _new,
) -> Frames:
    """The planes of these frames as they are stored, (count, K): what `geometry.pixels.from_planes`
    turns into the RGB of `decode_frames`.

    Raises:
        OtherPlanes: they are of another pixel format or colour space.
        UnreadableVideo: as `decode_frames`.
    """
    window = Window(start, count, size)
    return _decode(data, window, lambda decoded: _to_planes(decoded, window, pixel_format, room))


def _decode(
    data: bytes, window: Window, take: Callable[[Iterator[av.VideoFrame]], Frames]
) -> Frames:
    """What `take` makes of the decoded frames of a window."""
    with parsing("readable video"):
        table = read_sample_table(data)
        if table is not None and window.size in (None, table.size):
            found = _packets_at(data, table, window)
            if found is not None:
                return _decoded(_decoder(table), found, window, take)
        with open_mp4(data) as container:
            packets = _packets(container, window)
            context = container.streams.video[0].codec_context
            if window.size is not None:
                check_size((context.height, context.width), window.size)
            _set_up(context)
            return _decoded(context, packets, window, take)


def _decoded(
    context: av.VideoCodecContext,
    packets: "_Packets",
    window: Window,
    take: Callable[[Iterator[av.VideoFrame]], Frames],
) -> Frames:
    frames = take(_in_range(context, packets))
    if len(frames) != window.count:
        end = window.start + window.count
        raise UnreadableVideo(f"{len(frames)} of the frames {window.start} to {end} decode")
    return frames


def _decoder(table: SampleTable) -> av.VideoCodecContext:
    """A new one for every clip: frames may bring settings along that would stay."""
    context = av.VideoCodecContext.create("h264", "r")
    context.extradata = table.settings
    _set_up(context)
    return context


def _set_up(context: av.VideoCodecContext) -> None:
    context.thread_count = 1
    context.options = {"err_detect": "explode", "max_pixels": str(_MOST_PIXELS)}


class _Packets(NamedTuple):
    """From the key frame at or before a window on, and the times of its first and last frame."""

    packets: list[av.Packet]
    first: int
    last: int


def _packets_at(data: bytes, table: SampleTable, window: Window) -> _Packets | None:
    """By the table of the file: a frame's time is its number. None where its key frame is none."""
    start, end = window.start, window.start + window.count
    if start < 0 or window.count < 1 or end > len(table.sizes):
        raise _outside(window, len(table.sizes))
    needed = slice(table.key_before(start), end)
    if not table.can_begin(data, needed.start):
        return None
    packets: list[av.Packet] = []
    for at, size in zip(table.offsets[needed].tolist(), table.sizes[needed].tolist()):
        packet = av.Packet(data[at : at + size])
        packet.pts = packet.dts = needed.start + len(packets)
        packets.append(packet)
    return _Packets(packets, start, end - 1)


def _packets(container: av.container.InputContainer, window: Window) -> _Packets:
    """By reading all packets up to the window, whose times say in which order frames are shown."""
    start, end = window.start, window.start + window.count
    asked = start >= 0 and window.count >= 1
    packets = list(islice(each_packet(container), end + _MOST_REORDERED if asked else None))
    times = sorted(packet.pts or 0 for packet in packets)
    if not asked or end > len(times):
        raise _outside(window, len(times))
    first, last = times[start], times[end - 1]
    keys = [at for at, each in enumerate(packets) if each.is_keyframe and (each.pts or 0) <= first]
    return _Packets(packets[max(keys, default=0) :], first, last)


def _outside(window: Window, frames: int) -> UnreadableVideo:
    end = window.start + window.count
    return UnreadableVideo(f"frames {window.start} to {end} of a video of {frames}")


def _in_range(context: av.VideoCodecContext, found: _Packets) -> Iterator[av.VideoFrame]:
    """Decoded frames whose time is in [first, last]; stops as soon as the last one is out."""
    packets, first, last = found
    for packet in [*packets, None]:
        for frame in context.decode(packet):
            if frame.is_corrupt:
                raise UnreadableVideo("damaged picture")
            time = first - 1 if frame.pts is None else frame.pts
            if first <= time <= last:
                yield frame
            if time >= last:
                return


def _first_of(
    decoded: Iterator[av.VideoFrame], window: Window
) -> tuple[av.VideoFrame, Iterator[av.VideoFrame]] | None:
    """The first picture, and all of them, each found to be of its form; None without any."""
    first = next(decoded, None)
    if first is None:
        return None
    if window.size is not None:  # again: a picture need not be of the size its container states
        check_size((first.height, first.width), window.size)
    return first, _alike(first, decoded)


def _alike(first: av.VideoFrame, rest: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    wanted = form(first)
    yield first
    for picture in rest:
        if form(picture) != wanted:
            raise UnreadableVideo("its size changes within the video")
        yield picture


def _to_rgb(
    decoded: Iterator[av.VideoFrame],
    window: Window,
    room: Room,
) -> Frames:
    """Decoded frames as (count, H, W, 3) RGB, or fewer where fewer came."""
    found = _first_of(decoded, window)
    if found is None:
        return np.empty((0, 0, 0, 3), np.uint8)
    first, pictures = found
    frames = room((window.count, first.height, first.width, 3))
    if is_ours(first):
        return frames[: _CONVERTERS.of(first)(pictures, frames)]
    to_rgb, number = StoredToRgb(first), 0
    for number, picture in enumerate(pictures, 1):
        frames[number - 1] = to_rgb(picture)
    return frames[:number]


def _to_planes(
    decoded: Iterator[av.VideoFrame],
    window: Window,
    pixel_format: str,
    room: Room,
) -> Frames:
    """Decoded frames as (count, K) of their planes, or fewer where fewer came."""
    found = _first_of(decoded, window)
    if found is None:
        return np.empty((0, 0), np.uint8)
    first, pictures = found
    if not is_ours(first) or first.format.name != pixel_format:
        raise OtherPlanes(
            f"its planes are {first.format.name} of {first.colorspace!s} in {first.color_range!s}"
        )
    shapes = plane_shapes(first.height, first.width, pixel_format)
    frames = room((window.count, plane_bytes(first.height, first.width, pixel_format)))
    number = 0
    for number, picture in enumerate(pictures, 1):
        copy_planes(picture, shapes, frames[number - 1])
    return frames[:number]


class _Converters(threading.local):
    """Of every thread the converter that it used last, which holds some megabytes."""

    def __init__(self) -> None:
        self._last: tuple[tuple[int, int, str], PlanesToRgb] | None = None

    def of(self, picture: av.VideoFrame) -> PlanesToRgb:
        wanted = form(picture)
        if self._last is None or self._last[0] != wanted:
            self._last = wanted, PlanesToRgb(*wanted)
        return self._last[1]


_CONVERTERS = _Converters()
