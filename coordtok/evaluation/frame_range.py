"""Which frames of a video are wanted, when nobody knows yet how many it has."""

import re
from dataclasses import dataclass

from coordtok.config.errors import ConfigError, DataError

_FORM = re.compile(r"(\d*):(\d*)(?::(\d*))?")
_LONGEST_NUMBER = 12  # digits; a video of so many frames would play for a thousand years


@dataclass(frozen=True)
class FrameRange:
    """Frames start, start + step, ... below stop, counted from 0; None is the video's end."""

    start: int = 0
    stop: int | None = None
    step: int = 1

    def __post_init__(self) -> None:
        if self.start < 0 or self.step < 1:
            raise ConfigError(f"frames {self} start before frame 0 or have no step; count from 0")
        if self.stop is not None and self.stop <= self.start:
            raise ConfigError(f"frames {self} are none; END must be larger than START")

    @classmethod
    def parse(cls, text: str) -> "FrameRange":
        """From START:END[:STEP], where each may be left out, or the number of one frame."""
        if text.isdecimal() and len(text) <= _LONGEST_NUMBER:
            return cls(int(text), int(text) + 1)
        form = _FORM.fullmatch(text)
        if form is None or any(len(number or "") > _LONGEST_NUMBER for number in form.groups()):
            raise ConfigError(
                f"frames {text!r} are not START:END[:STEP] in whole numbers from 0; "
                "write for example 100:140:5"
            )
        start, stop, step = form.groups()
        return cls(int(start or 0), int(stop) if stop else None, int(step) if step else 1)

    def __str__(self) -> str:
        stop = "" if self.stop is None else self.stop
        return f"{self.start}:{stop}:{self.step}"

    def within(self, first: int, end: int) -> range:
        """The wanted frames from `first` on and below `end`."""
        steps = max(0, -(-(first - self.start) // self.step))
        stop = end if self.stop is None else min(end, self.stop)
        return range(self.start + steps * self.step, stop, self.step)

    def ends_by(self, frame: int) -> bool:
        """Whether no frame from `frame` on is wanted."""
        return self.stop is not None and not self.within(frame, self.stop)

    def check(self, total: int) -> None:
        """Raise a `DataError` if a video of `total` frames lacks a wanted one."""
        if self.start >= total or (self.stop is not None and not self.ends_by(total)):
            raise DataError(
                f"frames {self} are not all there: the video has {total}, counted from 0; choose "
                "earlier ones, or leave out END"
            )
