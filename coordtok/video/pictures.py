"""Pictures of clips: PNG files with a line of frames for each, and clips side by side."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from coordtok.storage.files import whole_file

LEAST_ROWS = 256
"""Of pictures that play side by side: smaller ones are enlarged, so that players blur nothing."""


def side_by_side(videos: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames of videos (T, H, W, 3) uint8 beside each other, each pixel enlarged alike."""
    scale = -(-LEAST_ROWS // videos[0].shape[1])
    for frames_HW3 in zip(*videos):
        yield np.concatenate(frames_HW3, axis=1).repeat(scale, axis=0).repeat(scale, axis=1)


def write_picture(path: Path, rows: Sequence[np.ndarray]) -> None:
    """Write a PNG with one line of frames for each row (F, H, W, 3) uint8.

    Raises:
        DataError: it cannot be written; nothing of it remains then.
    """
    lines = [np.concatenate(list(row_FHW3), axis=1) for row_FHW3 in rows]
    with whole_file(path) as file:
        Image.fromarray(np.concatenate(lines, axis=0)).save(file, format="PNG")
