"""A picture of any size as tiles of one size: cut out, worked on, and laid back without seams.

Where the picture is smaller than a tile, its border is repeated; where it is larger, the last tile
of a row or column is moved inward, so that tiles hold real pixels and overlap rather than pad.

Shapes: T frames, H rows, W columns, 3 colours.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Film = NDArray[np.uint8]  # (T, H, W, 3)


class Tile(NamedTuple):
    """The top left corner of a tile."""

    row: int
    column: int


def tiles(picture: tuple[int, int], tile: tuple[int, int]) -> list[Tile]:
    """The fewest tiles that cover a picture, row by row; both sizes are (height, width)."""
    return [Tile(*corner) for corner in product(*map(_starts, picture, tile))]


def _starts(length: int, size: int) -> list[int]:
    last = max(length - size, 0)
    return [min(start, last) for start in range(0, length, size)]


def cut(film_THW3: Film, tile: Tile, height: int, width: int) -> Film:
    """A tile of every frame, (T, height, width, 3)."""
    part = film_THW3[:, tile.row : tile.row + height, tile.column : tile.column + width]
    missing = (height - part.shape[1], width - part.shape[2])
    if not any(missing):
        return part
    return np.pad(part, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")


def lay(film_THW3: Film, tile: Tile, pixels_Thw3: Film) -> None:
    """Write a tile into the film; what `cut` added beyond its border is left out."""
    part = film_THW3[:, tile.row :, tile.column :][:, : pixels_Thw3.shape[1]]
    part = part[:, :, : pixels_Thw3.shape[2]]
    part[...] = pixels_Thw3[:, : part.shape[1], : part.shape[2]]
