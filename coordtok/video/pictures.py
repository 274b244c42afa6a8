"""Pictures of clips: PNG files with a line of frames for each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from coordtok.storage.files import whole_file


def write_picture(path: Path, rows: Sequence[np.ndarray]) -> None:
    """Write a PNG with one line of frames for each row (F, H, W, 3) uint8.

    Raises:
        DataError: it cannot be written; nothing of it remains then.
    """
    lines = [np.concatenate(list(row_FHW3), axis=1) for row_FHW3 in rows]
    with whole_file(path) as file:
        Image.fromarray(np.concatenate(lines, axis=0)).save(file, format="PNG")
