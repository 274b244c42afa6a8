"""Which times of a video are wanted, before its number of frames is known."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

from coordtok.errors import ConfigError, DataError

_FORM = re.compile(r"(\d*):(\d*)(?::(\d*))?")
_LONGEST_NUMBER = 12  # digits; a video of so many frames would play for a thousand years
_HIGHEST_RATE = 64  # frames out of one; a window's output has to fit into memory


@dataclass(frozen=True)
class FrameRange:
    """The times start, start + step, ... up to the last frame below stop, counted in frames from
    0; None is the video's end. With a step that is not whole some lie between two frames."""

    start: int = 0
    stop: int | None = None
    step: Fraction | int = 1

    def __post_init__(self) -> None:
        if self.start < 0 or self.step <= 0:
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

    def at_rate(self, text: str) -> "FrameRange":
        """Times so many to the frame: `text` is a number above 1, like 2, 2.5 or 5/2."""
        try:
            rate = Fraction(text) if len(text) <= _LONGEST_NUMBER else Fraction(0)
        except (ValueError, ZeroDivisionError):
            rate = Fraction(0)
        if not 1 < rate <= _HIGHEST_RATE:
            raise ConfigError(
                f"rate {text!r} is not a number above 1 and up to {_HIGHEST_RATE}, such as 2, 2.5 "
                "or 5/2; for fewer frames give a STEP in frames"
            )
        return replace(self, step=self.step / rate)

    def __str__(self) -> str:
        stop = "" if self.stop is None else self.stop
        return f"{self.start}:{stop}:{self.step}"

    @property
    def tick(self) -> Fraction:
        """All times are multiples of it; 1 where none lies between frames."""
        return Fraction(1, Fraction(self.step).denominator)

    def within(self, first: Fraction | int, end: int) -> range:
        """The numbers (0 is the first of all) of the times from `first` up to frame `end` - 1."""
        last = (end if self.stop is None else min(end, self.stop)) - 1
        return range(
            max(0, ceil(Fraction(first - self.start) / self.step)),
            int((last - self.start) // self.step) + 1,
        )

    def time(self, number: int) -> Fraction:
        return Fraction(self.start + number * self.step)

    def ends_by(self, first: Fraction | int) -> bool:
        """Whether no time from `first` on is wanted."""
        return self.stop is not None and not self.within(first, self.stop)

    def check(self, total: int) -> None:
        """Raise a `DataError` if a video of `total` frames lacks a wanted one."""
        beyond = self.stop is not None and not self.ends_by(total - 1 + self.tick)
        if self.start >= total or beyond:
            raise DataError(
                f"frames {self} are not all there: the video has {total}, counted from 0; choose "
                "earlier ones, or leave out END"
            )
