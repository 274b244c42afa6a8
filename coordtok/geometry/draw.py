"""Which patches of a clip are decoded in a training step (PAPER: random patches, or whole random
frames for the fine-tune).

Drawn on the host from a caller's counter-based generator, so the draw does not depend on the
device, the rank or the worker that makes it.
"""

import numpy as np

from coordtok.errors import ConfigError
from coordtok.geometry.grid import PatchGrid


def draw_points(
    rng: np.random.Generator,
    grid: PatchGrid,
    count: int,
    num_frames: int | None = None,
    replacement: bool = False,
) -> np.ndarray:
    """(count, 3) int64 indices (t, y, x), uniform over the patches that hold only real frames.

    `num_frames` is how many frames of the clip are real (all by default). A clip shorter than one
    patch still has its first slab: give its target `pixels.overwrite_padding` too.
    """
    available = _real_slabs(grid, num_frames) * grid.per_slab
    if count < 1:
        raise ConfigError(f"points is {count}; draw at least 1")
    if count > available and not replacement:
        raise ConfigError(
            f"points is {count}, but a clip of {num_frames or grid.size[0]} frames has {available} "
            "patches; draw fewer or set train.replacement=true"
        )
    flat_N = rng.choice(available, size=count, replace=replacement, shuffle=False)
    return _unravel(flat_N, grid)


def draw_slabs(
    rng: np.random.Generator,
    grid: PatchGrid,
    count: int,
    num_frames: int | None = None,
    replacement: bool = False,
) -> np.ndarray:
    """(count, 3) int64 indices of whole random slabs (`pt` frames each), slab by slab and row-major
    within; else as `draw_points`. `count` is in patches."""
    slabs, available = count // grid.per_slab, _real_slabs(grid, num_frames)
    if count < 1 or count % grid.per_slab:
        raise ConfigError(f"points is {count}; draw a multiple of a frame's {grid.per_slab}")
    if slabs > available and not replacement:
        raise ConfigError(
            f"points is {count}, {slabs} times a frame's {grid.per_slab} patches, but a clip of "
            f"{num_frames or grid.size[0]} frames has {available}; draw fewer or set "
            "train.replacement=true"
        )
    slab_F = rng.choice(available, size=slabs, replace=replacement, shuffle=False)
    flat_FN = slab_F[:, None] * grid.per_slab + np.arange(grid.per_slab)
    return _unravel(flat_FN.ravel(), grid)


def _real_slabs(grid: PatchGrid, num_frames: int | None) -> int:
    """Slabs that hold only real frames, and at least one."""
    frames = grid.size[0] if num_frames is None else int(num_frames)
    if not 1 <= frames <= grid.size[0]:
        raise ConfigError(f"num_frames is {frames}; a clip has 1 to {grid.size[0]} real frames")
    return max(1, frames // grid.patch[0])


def _unravel(flat_N: np.ndarray, grid: PatchGrid) -> np.ndarray:
    return np.stack(np.unravel_index(flat_N, grid.shape), axis=-1).astype(np.int64, copy=False)
