"""What a latent is: named planes, each over two of the axes (t, y, x).

The one description that everything else derives sizes from: a model's config gives it
(`config.latent`), and models, latent shards, statistics and checks take what they need of it. The
standard library alone, because config and planning read it too.
"""

import keyword
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

from coordtok.errors import ConfigError

Size2 = tuple[int, int]
Size3 = tuple[int, int, int]
AXES = ("t", "y", "x")
TRIPLANE = ("xy", "yt", "xt")
"""The paper's planes."""
WHOLE = (0.0, 1.0)
MOST_CONTENT_PLANES = 1024
"""Of a latent, whoever describes it."""


@dataclass(frozen=True)
class Plane:
    """A grid of nodes with `channels` numbers each."""

    name: str
    axes: tuple[str, str]
    """What its rows and its columns run along: two of t, y and x, in this order."""
    size: Size2
    """Rows and columns of nodes."""
    channels: int
    patch: Size2 = (1, 1)
    """Rows and columns that are one token of a model. Another model may cut the same plane
    otherwise."""
    time: tuple[float, float] = WHOLE
    """The part [start, stop) of the clip's [0, 1] that the plane is of: elsewhere it reads as zero,
    and rows along t cover this part alone. A part that stops at 1 includes it."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name[0] == "_" or keyword.iskeyword(self.name):
            raise ConfigError(f"a plane is called {self.name!r}; its name must be an identifier")
        if self.axes not in (("t", "y"), ("t", "x"), ("y", "x")):
            raise ConfigError(f"plane {self.name} is over {self.axes}; choose two of (t, y, x)")
        if min(*self.size, *self.patch, self.channels) < 1:
            raise ConfigError(f"{self} in patches of {self.patch}: all must be at least 1")
        if any(size % patch for size, patch in zip(self.size, self.patch)):
            raise ConfigError(f"{self}: patches of {self.patch} do not divide it")
        if not 0 <= self.time[0] < self.time[1] <= 1:
            raise ConfigError(f"plane {self.name} is of {self.time}; it must be a part of [0, 1)")

    def __str__(self) -> str:
        rows, columns = self.size
        part = "" if self.time == WHOLE else f" at times {self.time[0]:g} to {self.time[1]:g}"
        return f"plane {self.name} of {rows} x {columns} with {self.channels} channels{part}"

    @property
    def shape(self) -> Size3:
        """Rows, columns, channels."""
        return (*self.size, self.channels)

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)

    @property
    def grid(self) -> Size2:
        """Rows and columns of tokens."""
        return self.size[0] // self.patch[0], self.size[1] // self.patch[1]

    @property
    def tokens(self) -> int:
        return math.prod(self.grid)

    @property
    def patch_numbers(self) -> int:
        """Numbers that one token stands for."""
        return math.prod(self.patch) * self.channels

    def steps(self, count: int) -> range:
        """Which of `count` equal steps of the clip's time the plane is of."""
        start, stop = (round(each * count) for each in self.time)
        return range(start, stop)


@dataclass(frozen=True)
class LatentShape:
    """The planes of a latent, in the order in which they are packed, stored and read."""

    planes: tuple[Plane, ...]

    def __post_init__(self) -> None:
        if not self.planes or len(set(self.names)) < len(self.names):
            raise ConfigError(f"the planes are {self.names}; give at least one, each its own name")

    @classmethod
    def triplane(
        cls,
        size: Size3,
        channels: int | Size3,
        patch: Size3 = (1, 1, 1),
        content_planes: int = 1,
    ) -> "LatentShape":
        """The paper's planes: xy (H', W'), yt (T', H') and xt (T', W') of `size` (T', H', W'), and
        of as many `channels` each, or of those of xy, yt and xt.

        content_planes: so many in place of xy, xy0 and so on, each of an equal part of the time.
        """
        of_each = (channels,) * 3 if isinstance(channels, int) else channels
        planes = []
        for name, (rows, columns), numbers in zip(TRIPLANE, ((1, 2), (0, 1), (0, 2)), of_each):
            axes, nodes = (AXES[rows], AXES[columns]), (size[rows], size[columns])
            planes.append(Plane(name, axes, nodes, numbers, (patch[rows], patch[columns])))
        if content_planes > 1:
            planes[:1] = [
                replace(planes[0], name=f"xy{number}", time=part)
                for number, part in enumerate(_parts(content_planes))
            ]
        return cls(tuple(planes))

    @cached_property
    def plane_groups(self) -> tuple[tuple[Plane, ...], ...]:
        """The planes in order: content planes that are alike and share the whole time evenly are
        one group, every other plane is one by itself."""
        groups: list[tuple[Plane, ...]] = []
        for _, alike in groupby(self.planes, lambda plane: replace(plane, name="any", time=WHOLE)):
            planes = tuple(alike)
            times = [plane.time for plane in planes]
            shared = "t" not in planes[0].axes and times == _parts(len(planes))
            groups += [planes] if shared else [(plane,) for plane in planes]
        return tuple(groups)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(plane.name for plane in self.planes)

    @property
    def shapes(self) -> dict[str, Size3]:
        """Rows, columns and channels of each plane."""
        return {plane.name: plane.shape for plane in self.planes}

    @property
    def channels(self) -> dict[str, int]:
        """Of each plane."""
        return {plane.name: plane.channels for plane in self.planes}

    @property
    def features(self) -> int:
        """Numbers that are read at one coordinate: the channels of all planes, of those in a group
        of the one that the coordinate's time is of."""
        return sum(group[0].channels for group in self.plane_groups)

    @property
    def numbers(self) -> int:
        """M, all numbers of a latent."""
        return sum(plane.numbers for plane in self.planes)

    @property
    def positions(self) -> int:
        """Nodes of all planes, which the paper calls the tokens of a clip."""
        return sum(math.prod(plane.size) for plane in self.planes)

    @property
    def tokens(self) -> list[int]:
        """Of each plane."""
        return [plane.tokens for plane in self.planes]

    def difference(self, other: "LatentShape") -> str | None:
        """What is here and not so in `other`, in one line; None where latents of the two shapes
        mean the same. How a model cuts them into tokens does not count."""
        if self.names != other.names:
            return f"planes {', '.join(self.names)}, not {', '.join(other.names)}"
        for mine, theirs in zip(self.planes, other.planes):
            if replace(mine, patch=(1, 1)) != replace(theirs, patch=(1, 1)):
                wanted = str(theirs).removeprefix(f"plane {theirs.name} ")
                return f"{mine}, not {wanted}"
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON of what latents of this shape are: without token patches.

        The paper's planes by the size (T', H', W') that they share and their channels, a list where
        these differ, and how many are of xy, if several; any others one by one.
        """
        size = {axis: n for plane in self.planes for axis, n in zip(plane.axes, plane.size)}
        content_planes = len(self.planes) - len(TRIPLANE) + 1
        if 1 <= content_planes <= MOST_CONTENT_PLANES and len(size) == len(AXES):
            t, y, x = (size[axis] for axis in AXES)
            xy, yt, xt = (self.planes[number].channels for number in (0, -2, -1))
            like = LatentShape.triplane((t, y, x), (xy, yt, xt), content_planes=content_planes)
            if self.difference(like) is None:
                channels = xy if xy == yt == xt else [xy, yt, xt]
                keys = {"plane_size": [t, y, x], "channels": channels}
                return keys if content_planes == 1 else {**keys, "content_planes": content_planes}
        return {
            "planes": [
                {
                    "name": plane.name,
                    "axes": list(plane.axes),
                    "size": list(plane.size),
                    "channels": plane.channels,
                    "time": list(plane.time),
                }
                for plane in self.planes
            ]
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "LatentShape":
        """The inverse of `to_dict`; other keys are left alone.

        Raises:
            KeyError, TypeError, ValueError, ConfigError: it is no such description.
        """
        if "planes" not in stored:
            t, y, x = map(_count, stored["plane_size"])
            channels = stored["channels"]
            xy, yt, xt = map(_count, channels if isinstance(channels, list) else [channels] * 3)
            if (content_planes := _count(stored.get("content_planes", 1))) > MOST_CONTENT_PLANES:
                raise ValueError(f"{content_planes} content planes are over {MOST_CONTENT_PLANES}")
            return cls.triplane((t, y, x), (xy, yt, xt), content_planes=content_planes)
        return cls(tuple(map(_plane, stored["planes"])))


def _parts(count: int) -> list[tuple[float, float]]:
    """As many equal parts of the clip's time."""
    return list(pairwise(number / count for number in range(count + 1)))


def _plane(stored: Mapping[str, Any]) -> Plane:
    first, second = map(str, stored["axes"])
    rows, columns = map(_count, stored["size"])
    start, stop = map(float, stored["time"])
    return Plane(
        name=str(stored["name"]),
        axes=(first, second),
        size=(rows, columns),
        channels=_count(stored["channels"]),
        time=(start, stop),
    )


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is no size")
    return value
