"""What ffmpeg says of a container, none of which is believed before its frames are decoded."""

import math
import os
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

import av
from av.stream import Disposition

from coordtok.errors import one_line
from coordtok.storage.files import open_regular
from coordtok.video.codec import UnreadableVideo

ENOUGH_FRAMES = 0.9
"""Of what a container promises; fewer means that it was cut off."""
_LONGEST_STRETCH = 8  # pixel aspect ratios beyond it are damage, not films


def open_container(path: str | os.PathLike[str]) -> av.container.InputContainer:
    """Any file that ffmpeg reads, whatever its name, and nothing that it may point to.

    Raises:
        UnreadableVideo: missing, empty, of no known format, or without a moving picture.
    """
    try:
        file = open_regular(path)
        if not os.path.getsize(path):
            raise UnreadableVideo("the file is empty")
        # Opened by number, so that its contents tell what it is, not its name: by its name a
        # text is a film of text. Playlists may name other files and hosts: only the file itself
        # is read.
        container = av.open(
            file, "r", metadata_errors="ignore", options={"protocol_whitelist": "none"}
        )
    except av.InvalidDataError:
        raise UnreadableVideo(
            "no format that ffmpeg knows, or a part of the file is missing"
        ) from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise UnreadableVideo(reason(error)) from None
    if not _moving(container):
        container.close()
        raise UnreadableVideo("no moving picture in it, only sound or other data")
    if container.streams.video[0].codec_context is None:
        container.close()
        raise UnreadableVideo("ffmpeg has no decoder for its pictures")
    return container


class Span:
    """From the first to the last moment that any stream has come to."""

    def __init__(self) -> None:
        self._first, self._last = math.inf, -math.inf

    def add(self, packet: av.Packet) -> None:
        time = packet_time(packet)
        if time is not None and packet.time_base is not None:
            self._first = min(self._first, float(time * packet.time_base))
            self._last = max(self._last, float((time + (packet.duration or 0)) * packet.time_base))

    @property
    def seconds(self) -> float:
        return max(0.0, self._last - self._first)


def promised_frames(container: av.container.InputContainer, fps: Fraction) -> int:
    """Frames the container claims to hold, good only for a comparison; 0 where it claims none."""
    stream = container.streams.video[0]
    if stream.frames:
        return stream.frames
    if stream.duration and stream.time_base:
        return int(stream.duration * stream.time_base * fps)
    return int(_duration(container) * fps) if len(container.streams) == 1 else 0


def frames_in(container: av.container.InputContainer, span: Span, fps: Fraction) -> int:
    """Frames in the time that the container claims to last, if none of its streams lasts as long:
    Matroska states no other, and sound may be longer than the picture. 0 otherwise."""
    claimed = _duration(container)
    return int(claimed * fps) if span.seconds < ENOUGH_FRAMES * claimed else 0


def _duration(container: av.container.InputContainer) -> Fraction:
    """Seconds the container claims to last; 0 where it claims nothing."""
    return Fraction(container.duration or 0) / av.time_base


def pixel_aspect(stream: av.VideoStream) -> Fraction:
    """Width of a pixel over its height; 1 where none or nonsense is stated."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    return aspect if 1 / _LONGEST_STRETCH <= aspect <= _LONGEST_STRETCH else Fraction(1)


def _moving(container: av.container.InputContainer) -> bool:
    """Whether the first video stream is a film: sound files carry cover pictures as video."""
    videos = container.streams.video
    return bool(videos) and not videos[0].disposition & Disposition.attached_pic


def decoded(
    container: av.container.InputContainer, span: Span
) -> Iterator[tuple[av.VideoFrame, int | None]]:
    """Frames and their times in the order of showing.

    A packet without data, as Theora has, means the frame before it once more; to ffmpeg's
    decoders it would mean the end.
    """
    stream = container.streams.video[0]
    held: av.VideoFrame | None = None
    repeats: deque[int] = deque()
    for packet in container.demux():
        span.add(packet)
        if packet.stream.index != stream.index:
            continue
        if not packet.size and (time := packet_time(packet)) is not None:
            repeats.append(time)
            continue
        for frame in stream.codec_context.decode(packet):
            while repeats and (frame.pts is None or repeats[0] < frame.pts):
                time = repeats.popleft()
                if held is not None:
                    yield held, time
            held = frame
            yield frame, frame.pts
    while held is not None and repeats:
        yield held, repeats.popleft()


def packet_time(packet: av.Packet) -> int | None:
    """None of the packet that comes after the last one."""
    return packet.dts if packet.pts is None else packet.pts


def reason(error: Exception) -> str:
    """What ffmpeg or the system says, without the file's name, which the caller knows."""
    return one_line(getattr(error, "strerror", None) or error or type(error).__name__)
