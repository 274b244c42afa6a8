"""Which patches of a clip are decoded in a training step: random ones, or whole random frames for
the fine-tune (docs/method.md, "Training").

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
    flat_N = _draw(rng, grid, count, 1, num_frames, replacement)
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
    slab_F = _draw(rng, grid, count, grid.per_slab, num_frames, replacement)
    flat_FN = slab_F[:, None] * grid.per_slab + np.arange(grid.per_slab)
    return _unravel(flat_FN.ravel(), grid)


def _draw(
    rng: np.random.Generator,
    grid: PatchGrid,
    count: int,
    together: int,
    num_frames: int | None,
    replacement: bool,
) -> np.ndarray:
    """Numbers of random units of `together` patches, `count` patches of them in all, out of the
    real frames."""
    frames = grid.size[0] if num_frames is None else num_frames
    if not 1 <= frames <= grid.size[0]:
        raise ConfigError(f"num_frames is {frames}; a clip has 1 to {grid.size[0]} real frames")
    if count < 1 or count % together:
        raise ConfigError(f"points is {count}; draw a positive multiple of {together}")
    available = max(1, frames // grid.patch[0]) * grid.per_slab
    if count > available and not replacement:
        raise ConfigError(
            f"points is {count}, but a clip of {frames} frames has {available} patches; draw fewer "
            "or set train.replacement=true"
        )
    return rng.choice(
        available // together, size=count // together, replace=replacement, shuffle=False
    )


def _unravel(flat_N: np.ndarray, grid: PatchGrid) -> np.ndarray:
    return np.stack(np.unravel_index(flat_N, grid.shape), axis=-1).astype(np.int64, copy=False)
