"""How the patches of a video are cut into decoder passes.

The decoder attends across the patches of a pass, so its output depends on the cut. A pass is
always a fixed group of whole slabs (`pt` frames each), which makes any frame's pixels independent
of which other frames were asked for, and lets one frame be decoded at the cost of its group.
"""

from typing import Literal, get_args

import numpy as np
import torch

from coordtok.config.errors import ConfigError
from coordtok.geometry.grid import PatchGrid

Grouping = Literal["strided", "contiguous", "random"]
Group = tuple[int, ...]


def _group_count(grid: PatchGrid, points_per_pass: int) -> int:
    """The number of equal groups whose mean size is nearest to `points_per_pass`."""
    slabs = grid.shape[0]
    fewest = min(max(1, grid.count // points_per_pass), slabs)
    candidates = (min(fewest + 1, slabs), fewest)
    return min(candidates, key=lambda groups: abs(grid.count / groups - points_per_pass))


def slab_groups(
    grid: PatchGrid, points_per_pass: int, grouping: Grouping = "strided", seed: int = 0
) -> tuple[Group, ...]:
    """Slabs (indices along t) of each pass; every slab is in one group, sizes differ by at most 1.

    strided: group g of G is g, g + G, ...: spread over the clip, as in training. contiguous: runs
    of neighbours. random: a seeded permutation cut into runs.
    """
    if points_per_pass < 1:
        raise ConfigError(f"points_per_pass is {points_per_pass}; decode at least 1 patch a pass")
    if grouping not in get_args(Grouping):
        choices = ", ".join(get_args(Grouping))
        raise ConfigError(f"grouping is {grouping!r}; choose one of {choices}")
    slabs = np.arange(grid.shape[0])
    groups = _group_count(grid, points_per_pass)
    if grouping == "strided":
        return tuple(tuple(slabs[first::groups].tolist()) for first in range(groups))
    if grouping == "random":
        slabs = np.random.default_rng(seed).permutation(slabs)
    return tuple(tuple(part.tolist()) for part in np.array_split(slabs, groups))


def group_index(grid: PatchGrid, group: Group, device: torch.device | None = None) -> torch.Tensor:
    """All patches of a group's slabs, (N, 3) int64, slab by slab and row-major within."""
    slab_F = torch.tensor(group, dtype=torch.int64, device=device)
    within_N = torch.arange(grid.per_slab, device=device)
    return grid.unravel((slab_F[:, None] * grid.per_slab + within_N).flatten())
