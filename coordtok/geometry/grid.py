"""The grid of patches that a video is cut into.

Integers (t, y, x) identify a patch. Floats say where it is, and `PatchGrid.coordinates` is the only
place that derives them, so that index and position can never disagree.

Shapes: B batch, N queried patches, T frames, H rows, W columns; "..." any leading dimensions.
"""

import math
from dataclasses import dataclass

import torch

from coordtok.errors import ConfigError
from coordtok.geometry.latent import Size3


@dataclass(frozen=True)
class PatchGrid:
    """A video of `size` (T, H, W) cut into patches of `patch` (pt, ph, pw)."""

    size: Size3
    patch: Size3

    def __post_init__(self) -> None:
        for size, patch in zip(self.size, self.patch):
            if patch < 1 or size < patch or size % patch:
                raise ConfigError(
                    f"patch {self.patch} does not divide the video {self.size}; "
                    "choose a divisor along every axis (t, y, x)"
                )

    @property
    def shape(self) -> Size3:
        """Patches along t, y and x."""
        t, y, x = (size // patch for size, patch in zip(self.size, self.patch))
        return t, y, x

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def per_slab(self) -> int:
        """Patches that share one t: together they are `pt` whole frames."""
        return self.shape[1] * self.shape[2]

    def ravel(self, index_N3: torch.Tensor) -> torch.Tensor:
        """Row-major number of each patch, (..., 3) to (...), int64."""
        t, y, x = index_N3.unbind(-1)
        return (t * self.shape[1] + y) * self.shape[2] + x

    def unravel(self, flat_N: torch.Tensor) -> torch.Tensor:
        """The inverse of `ravel`: (...) to (..., 3), int64."""
        _, rows, columns = self.shape
        slab = flat_N // columns
        return torch.stack([slab // rows, slab % rows, flat_N % columns], dim=-1)

    def coordinates(self, index_N3: torch.Tensor, frame_offset: float = 0.0) -> torch.Tensor:
        """Where patches are: index / (n - 1) in [0, 1] along each axis, 0 where n is 1; float32.

        frame_offset: added to the index along t, for places between patches.
        """
        axes = zip(index_N3.unbind(-1), self.shape, (frame_offset, 0.0, 0.0))
        return torch.stack(
            [(index.float() + shift) / max(1, count - 1) for index, count, shift in axes], dim=-1
        )
