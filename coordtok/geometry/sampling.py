"""Which patches of a clip are decoded in a training step (PAPER: random patches).

Drawn on the host from a caller's counter-based generator, so the draw does not depend on the
device, the rank or the worker that makes it.
"""

import numpy as np

from coordtok.config.errors import ConfigError
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
    frames = grid.size[0] if num_frames is None else int(num_frames)
    if not 1 <= frames <= grid.size[0]:
        raise ConfigError(f"num_frames is {frames}; a clip has 1 to {grid.size[0]} real frames")
    available = max(1, frames // grid.patch[0]) * grid.per_slab
    if count < 1:
        raise ConfigError(f"points is {count}; draw at least 1")
    if count > available and not replacement:
        raise ConfigError(
            f"points is {count}, but a clip of {frames} frames has {available} patches; "
            "draw fewer or set train.replacement=true"
        )
    flat = rng.choice(available, size=count, replace=replacement, shuffle=False)
    return np.stack(np.unravel_index(flat, grid.shape), axis=-1).astype(np.int64, copy=False)
