"""Count, sum and sum of squares of every channel of every plane: mean and std of a whole dataset.

In float64 and added up in the order of the shards, so that the result does not depend on how many
ranks encoded them. Planes are (rows, columns, C).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coordtok.data.latents import ChannelValues
from coordtok.errors import DataError

_LEAST_VARIANCE = 1e-12  # relative to the mean square; rounding leaves as much of a constant


class ChannelSums:
    """Sums over all positions of some latents."""

    def __init__(self, channels: Mapping[str, int]) -> None:
        """channels: of each plane."""
        self.count = dict.fromkeys(channels, 0)
        self.sum = {plane: np.zeros(number) for plane, number in channels.items()}
        self.squares = {plane: np.zeros(number) for plane, number in channels.items()}

    def add(self, planes: Mapping[str, NDArray[np.float32]]) -> None:
        """Count the planes of one clip in."""
        for name, plane in planes.items():
            values = plane.reshape(-1, plane.shape[-1]).astype(np.float64)
            self.count[name] += len(values)
            self.sum[name] += values.sum(axis=0)
            self.squares[name] += np.square(values).sum(axis=0)

    def merge(self, other: "ChannelSums") -> None:
        """Count in what `other` has."""
        for name in self.count:
            self.count[name] += other.count[name]
            self.sum[name] += other.sum[name]
            self.squares[name] += other.squares[name]

    def mean(self) -> ChannelValues:
        """Of each channel; at least one clip must have been counted."""
        return {name: tuple((self.sum[name] / self.count[name]).tolist()) for name in self.count}

    def std(self) -> ChannelValues:
        """Of each channel, of all values (divided by their count).

        Raises:
            DataError: a channel that is the same everywhere: nothing can be divided by its std.
        """
        return {name: self._std(name) for name in self.count}

    def _std(self, name: str) -> tuple[float, ...]:
        mean_square = self.squares[name] / self.count[name]
        variance = mean_square - np.square(self.sum[name] / self.count[name])
        for channel, value in enumerate(variance):
            if value <= _LEAST_VARIANCE * mean_square[channel]:
                raise DataError(
                    f"channel {channel} of plane {name} is the same everywhere in these latents, "
                    "so they cannot be normalised; train the tokenizer longer, or encode more video"
                )
        return tuple(math.sqrt(value) for value in variance)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON that gives every bit back."""
        return {
            "count": self.count,
            "sum": {name: self.sum[name].tolist() for name in self.count},
            "squares": {name: self.squares[name].tolist() for name in self.count},
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "ChannelSums":
        """Read what `to_dict` gave."""
        sums = cls({})
        sums.count = {name: int(stored["count"][name]) for name in stored["count"]}
        sums.sum = {name: np.array(stored["sum"][name]) for name in sums.count}
        sums.squares = {name: np.array(stored["squares"][name]) for name in sums.count}
        return sums
