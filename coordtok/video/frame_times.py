"""When frames are shown: clocks of containers that run unevenly, and frames at a steady rate."""

from collections.abc import Iterator
from fractions import Fraction

import av

from coordtok.video.codec import UnreadableVideo

_LONGEST_PAUSE = 60  # seconds a frame may be held at a fixed rate; beyond it the clock is broken


class Clock:
    """Seconds from the first frame; never runs backwards, and ticks where a frame has no time."""

    def __init__(self, fps: Fraction) -> None:
        self._tick = 1 / fps
        self._origin: Fraction | None = None
        self._now = -self._tick

    def __call__(self, pts: int | None, time_base: Fraction | None) -> Fraction:
        if pts is None or time_base is None:
            self._now += self._tick
            return self._now
        time = pts * time_base
        if self._origin is None:
            self._origin = time
        self._now = max(self._now, time - self._origin)
        return self._now


def at_rate(
    timed: Iterator[tuple[av.VideoFrame, Fraction]], native: Fraction, fps: Fraction
) -> Iterator[tuple[av.VideoFrame, Fraction]]:
    """Frames at a steady rate: slot k shows the last frame whose time rounds to k or before."""
    held: av.VideoFrame | None = None
    slot, time = 0, Fraction(0)
    for frame, time in timed:
        following = _slot(time, fps)
        if following - slot > _LONGEST_PAUSE * fps:
            raise UnreadableVideo(f"its clock jumps by {float((following - slot) / fps):.0f} s")
        while held is not None and slot < following:
            yield held, slot / fps
            slot += 1
        held = frame
    end = max(_slot(time + 1 / native, fps), 1)
    while held is not None and slot < end:
        yield held, slot / fps
        slot += 1


def _slot(time: Fraction, fps: Fraction) -> int:
    return int(time * fps + Fraction(1, 2))
