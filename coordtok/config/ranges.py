"""Ranges of numbers, written beside the fields that have them:

    steps: Annotated[int, Range(1, 1000)]

They are checked when a section is made, and docs/config.md shows them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, get_type_hints

from coordtok.errors import ConfigError
from coordtok.geometry.latent import AXES, TRIPLANE, Size3


@dataclass(frozen=True)
class Range:
    """The finite numbers from `least`, or `above` it, up to `most`, or `below` it."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            -math.inf < value < math.inf
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        low = self.least if self.above is None else self.above
        high = self.most if self.below is None else self.below
        if low is None:
            return "finite"
        if high is None:
            return "positive" if self.above == 0 else f"at least {low:,}"
        if self.above is None and self.below is None:
            return f"between {low:,} and {high:,}"
        left, right = "[" if self.above is None else "(", "]" if self.below is None else ")"
        return f"in {left}{low:,}, {high:,}{right}"


class Section:
    """A section of a config: a dataclass that checks its fields' ranges, then `check`.

    at: where it stands in the YAML, for messages.
    """

    _prefix: ClassVar[str] = ""

    def __init_subclass__(cls, at: str = "") -> None:
        cls._prefix = f"{at}." if at else ""

    def __post_init__(self) -> None:
        for name, allowed in ranges(type(self)).items():  # type: ignore[arg-type]
            for place, value in _numbers(name, getattr(self, name)):
                require(value in allowed, f"{self._prefix}{place} is {value}; it must be {allowed}")
        self.check()

    def check(self) -> None:
        """Raise a ConfigError for values that do not go together."""


@cache
def ranges(section: type) -> dict[str, Range]:
    """The ranges of a section's fields, by name."""
    found = {}
    for name, hint in get_type_hints(section, include_extras=True).items():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, Range):
                found[name] = extra
    return found


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """A field's numbers, those of a size by axis and channels by plane; none where it is null."""
    if isinstance(value, tuple):
        is_named = len(value) == len(AXES)
        for part, number in zip(TRIPLANE if name == "plane_channels" else AXES, value):
            yield f"{name}.{part}" if is_named else name, number
    elif value is not None:
        yield name, value


def require(condition: bool, message: str) -> None:
    """Raise a ConfigError of `message` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def require_divides(name: str, whole: Size3, part_name: str, part: Size3) -> None:
    """Raise a ConfigError unless `part` divides `whole` along every axis."""
    for axis, size, step in zip(AXES, whole, part):
        require(
            size % step == 0,
            f"{name} is {size} along {axis}, which model.{part_name} {step} does not divide; "
            f"choose a divisor of {size}",
        )
