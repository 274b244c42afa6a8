"""Any video file, however made, as a stream of upright RGB frames.

Nothing about a file is believed before it is decoded: names may look like URLs to ffmpeg (so files
are handed over open), counts and durations lie (so frames are counted), time may run unevenly,
pictures may lie on their side or have pixels that are not square. Frames come one at a time, so an
hour-long film takes no more memory than a short clip.
"""

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, islice
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorTrc
from numpy.typing import NDArray
from PIL import Image

from coordtok.video.codec import UnreadableVideo
from coordtok.video.container import (
    ENOUGH_FRAMES,
    Span,
    decoded,
    frames_in,
    open_container,
    packet_time,
    pixel_aspect,
    promised_frames,
    reason,
)
from coordtok.video.frame_times import Clock, at_rate
from coordtok.video.pixel_formats import AnyToRgb
from coordtok.video.threads import map_in_order

Picture = NDArray[np.uint8]  # (H, W, 3) RGB

RESAMPLERS = {"bicubic": Image.Resampling.BICUBIC, "area": Image.Resampling.BOX}
_ASSUMED_RATE = Fraction(25)  # for streams that state none
_HDR_CURVES: dict[int, str] = {ColorTrc.SMPTE2084: "PQ", ColorTrc.ARIB_STD_B67: "HLG"}
_ANCHOR_DISTANCE = 16  # frames; where all are key frames, listing each would gain little
_ENTRIES = 4  # anchors that a window may be reached from


class Anchor(NamedTuple):
    """A key frame where decoding may begin: its number in the video and its time stamp."""

    number: int
    stamp: int


class DamageInThreads(UnreadableVideo):
    """Damage of which a decoder makes other pictures on several threads than on one: for the same
    frames anywhere, decode the video again on one."""


class SourceVideo:
    """A video file. Its `frames` can be read again and again; each time opens the file anew.

    promised_frames: what the container claims to hold, good for a progress bar; 0 where it claims
    nothing. hdr: "PQ" or "HLG" where such a transfer curve is stated; it is not undone, so frames
    look flat. None otherwise. damage: where frames were read with `keep_damaged`, why they ended
    too early; None if they did not.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int = 1,
        keep_damaged: bool = False,
        decoders: int | None = None,
    ) -> None:
        self.path = path
        self.threads = threads
        self._decoders = threads if decoders is None else decoders
        self.keep_damaged = keep_damaged
        self.damage: str | None = None
        with open_container(self.path) as container:
            stream = container.streams.video[0]
            self.fps: Fraction = stream.average_rate or stream.guessed_rate or _ASSUMED_RATE
            self._pixel_aspect = pixel_aspect(stream)
            self.hdr = _HDR_CURVES.get(stream.codec_context.color_trc)
            self.promised_frames = promised_frames(container, self.fps)

    def frames(
        self, fps: Fraction | None = None, finish: Callable[[Picture], Picture] | None = None
    ) -> Iterator[Picture]:
        """Upright frames (h, w, 3) with square pixels.

        Args:
            fps: None for every decoded frame once, whatever its time; else frames at this steady
                rate: each frame in the slot nearest to its time, held or dropped as needed.
            finish: what becomes of every frame, such as resizing it; `threads` at a time.

        Raises:
            DamageInThreads: it is damaged, and was decoded by several threads.
            UnreadableVideo: without a frame; damaged, or cut off before its promised end, unless
                damage is kept.
        """
        timed = self._decode() if fps is None else at_rate(self._decode(), self.fps, fps)
        return self._pictures((frame for frame, _ in timed), finish)

    def survey(self) -> tuple[int, list[Anchor]]:
        """The number of frames and where `window` may begin to decode, from decoding all of it;
        raises as `frames`, but that damage which threads find is looked at again on one."""
        try:
            return self._survey()
        except DamageInThreads:
            return SourceVideo(self.path, self.threads, self.keep_damaged, 1)._survey()

    def count(self) -> int:
        """About the number of frames, from the packets: nothing is decoded."""
        with open_container(self.path) as container:
            packets = container.demux(container.streams.video[0])
            return sum(packet_time(packet) is not None for packet in packets)

    def _survey(self) -> tuple[int, list[Anchor]]:
        count, latest = 0, -math.inf
        anchors: list[Anchor] = []
        for count, (frame, _) in enumerate(self._decode(), 1):
            if frame.pts is None:
                continue
            far = not anchors or count - 1 >= anchors[-1].number + _ANCHOR_DISTANCE
            if far and frame.key_frame and frame.pts > latest:
                anchors.append(Anchor(count - 1, frame.pts))
            latest = max(latest, frame.pts)
        return count, anchors

    def window(self, start: int, count: int, anchors: Sequence[Anchor]) -> Iterator[Picture]:
        """The frames start ... start + count - 1 of `frames`, decoded from the nearest of the
        anchors that `survey` found; from the beginning where a container cannot be entered there.

        Raises:
            UnreadableVideo: damaged, or fewer frames than that.
        """
        found = self._enter([each for each in anchors if each.number <= start])
        number, frames = found or (0, (frame for frame, _ in self._decode()))
        at = start
        try:
            for picture in self._pictures(islice(frames, start - number, start - number + count)):
                yield picture
                at += 1
        except (av.FFmpegError, ValueError) as error:
            raise UnreadableVideo(f"damaged after {at} frames: {reason(error)}") from None
        if at < start + count:
            raise UnreadableVideo(f"it ends after {at} frames; it was longer before")

    def _pictures(
        self,
        frames: Iterable[av.VideoFrame],
        finish: Callable[[Picture], Picture] | None = None,
    ) -> Iterator[Picture]:
        converters = _Converters(self._pixel_aspect)

        def convert(frame: av.VideoFrame) -> Picture:
            picture = _upright(converters.to_rgb(frame), frame.rotation)
            return picture if finish is None else finish(picture)

        return map_in_order(convert, frames, self.threads)

    def _enter(self, anchors: Sequence[Anchor]) -> tuple[int, Iterator[av.VideoFrame]] | None:
        """The number of the last of the anchors, and the frames from it on.

        Seeking may end beyond the place asked for, so those before it are tried as well; None where
        it is found from none of them, or is the beginning.
        """
        for before in anchors[: -_ENTRIES - 1 : -1]:
            if before.number and (frames := self._from(before.stamp, anchors[-1].stamp)):
                return anchors[-1].number, frames
        return None

    def _from(self, entry: int, stamp: int) -> Iterator[av.VideoFrame] | None:
        """The frames from the one stamped `stamp` on, after seeking `entry`; None without it."""
        frames = self._after_seek(entry)
        try:
            for frame in frames:
                if frame.pts is None or frame.pts > stamp:
                    return None
                if frame.pts == stamp:
                    return chain([frame], frames)
        except (av.FFmpegError, ValueError):
            pass
        return None

    def _after_seek(self, stamp: int) -> Iterator[av.VideoFrame]:
        with open_container(self.path) as container:
            container.seek(stamp, stream=container.streams.video[0])
            self._use_threads(container)
            for frame, _ in decoded(container, Span()):
                yield frame

    def _use_threads(self, container: av.container.InputContainer) -> None:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = self._decoders
        stream.thread_type = "AUTO" if self._decoders > 1 else "NONE"

    def _decode(self) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Every decoded frame with its time in seconds from the first."""
        count, span, self.damage = 0, Span(), None
        with open_container(self.path) as container:
            self._use_threads(container)
            clock = Clock(self.fps)
            try:
                for frame, pts in decoded(container, span):
                    if frame.is_corrupt and self._decoders > 1:
                        raise DamageInThreads("damaged")
                    count += 1
                    yield frame, clock(pts, frame.time_base)
            except (av.FFmpegError, ValueError) as error:
                self.damage = f"damaged after {count} frames: {reason(error)}"
            promised = self.promised_frames or frames_in(container, span, self.fps)
        if not count:
            raise UnreadableVideo(self.damage or "not one frame in it")
        if self.damage is None and count < ENOUGH_FRAMES * promised:
            self.damage = f"cut off: {count} of about {promised} frames are there"
        if self.damage is not None and self._decoders > 1:
            raise DamageInThreads(self.damage)
        if self.damage is not None and not self.keep_damaged:
            raise UnreadableVideo(self.damage)


def open_video(
    path: str | os.PathLike[str],
    threads: int = 1,
    keep_damaged: bool = False,
    decoders: int | None = None,
) -> SourceVideo:
    """Open any file ffmpeg reads.

    Args:
        threads: how many convert its frames.
        keep_damaged: of a damaged one give the frames before the damage.
        decoders: threads that decode it; as many as convert by default.

    Raises:
        UnreadableVideo: missing, empty, of no known format, or without a moving picture.
    """
    return SourceVideo(path, threads, keep_damaged, decoders)


def why_no_video(path: str | os.PathLike[str]) -> str | None:
    """Why a file is not taken for a video, whatever its name; None where it is one."""
    try:
        frames = list(islice(open_video(path).frames(), 2))
    except UnreadableVideo as error:
        return str(error)
    return None if len(frames) == 2 else "a single picture"


def resize_and_crop(
    picture: Picture, height: int, width: int, resample: str = "bicubic"
) -> Picture:
    """The centre of a picture at (height, width, 3), as large as fits.

    The picture is scaled so that it just covers the target, both directions alike and with the
    filter widened for the scale (no aliasing), and what hangs over is cut off evenly.
    """
    rows, columns, _ = picture.shape
    scale = max(height / rows, width / columns)
    y, x = (rows - height / scale) / 2, (columns - width / scale) / 2
    box = (max(x, 0.0), max(y, 0.0), min(columns - x, columns), min(rows - y, rows))
    image = Image.fromarray(picture)
    return np.asarray(image.resize((width, height), RESAMPLERS[resample], box=box))


class _Converters(threading.local):
    """One converter for every thread."""

    def __init__(self, pixel_aspect: Fraction) -> None:
        self.to_rgb = AnyToRgb(pixel_aspect)


def _upright(picture: Picture, rotation: float) -> Picture:
    """A picture whose file says that it is to be shown turned by `rotation` degrees."""
    quarter_turns = round(rotation / 90) % 4  # counterclockwise, as in np.rot90
    return np.ascontiguousarray(np.rot90(picture, quarter_turns)) if quarter_turns else picture
