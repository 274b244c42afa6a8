"""How the patches of a video are cut into decoder passes.

The decoder attends across the patches of a pass, so its output depends on the cut. The cut is a
fixed one of the whole clip, which makes any frame's pixels independent of which other frames were
asked for; where a group is of whole slabs (`pt` frames each), one frame is decoded at the cost of
its group. docs/grouping.md compares the groupings on a trained model.
"""

from typing import Literal, get_args

import numpy as np
import torch

from coordtok.errors import ConfigError
from coordtok.geometry.grid import PatchGrid

Grouping = Literal["strided", "contiguous", "random"]

DEFAULT_GROUPING: Grouping = "strided"
"""As good as random patches, which training saw, from four frames a pass on, at the cost of one
pass for a frame (docs/grouping.md)."""


def patch_groups(
    grid: PatchGrid,
    points_per_pass: int,
    grouping: Grouping = DEFAULT_GROUPING,
    seed: int = 0,
) -> tuple[torch.Tensor, ...]:
    """Indices (N, 3) int64 of the patches of each pass, in row-major order.

    Every patch is in one group; the groups are as many as bring their mean size nearest to
    `points_per_pass`, and differ by at most one slab ("random": one patch).

    strided: group g of G is the slabs g, g + G, ...: spread over the clip. contiguous: runs of
    neighbouring slabs; with `points_per_pass` = `grid.per_slab` every frame on its own. random:
    patches drawn by `seed` from the whole clip, as in training; a frame's are in nearly all groups.
    """
    if points_per_pass < 1:
        raise ConfigError(f"points_per_pass is {points_per_pass}; decode at least 1 patch a pass")
    if grouping not in get_args(Grouping):
        choices = ", ".join(get_args(Grouping))
        raise ConfigError(f"grouping is {grouping!r}; choose one of {choices}")
    together = 1 if grouping == "random" else grid.per_slab
    units = np.arange(grid.count // together)
    groups = _group_count(grid.count, points_per_pass, len(units))
    if grouping == "random":
        units = np.random.default_rng(seed).permutation(units)
    if grouping == "strided":
        parts = [units[first::groups] for first in range(groups)]
    else:
        parts = [np.sort(part) for part in np.array_split(units, groups)]
    flat = [(part[:, None] * together + np.arange(together)).ravel() for part in parts]
    return tuple(grid.unravel(torch.from_numpy(flat_N)) for flat_N in flat)


def _group_count(patches: int, points_per_pass: int, most: int) -> int:
    """The number of equal groups, at most `most`, of a mean size nearest to `points_per_pass`."""
    fewest = min(max(1, patches // points_per_pass), most)
    candidates = (min(fewest + 1, most), fewest)
    return min(candidates, key=lambda groups: abs(patches / groups - points_per_pass))
