"""A picture of some clips and what a tokenizer makes of them, for people to look at.

Every clip is a caption, a row of its frames, spread over the clip, and below it the same frames
reconstructed.

Shapes: S shown frames, H rows, W columns, 3 colours.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from coordtok.errors import one_line

_INK, _FAINT, _PAPER = (24, 24, 27), (113, 113, 122), (255, 255, 255)
MARGIN, _GAP = 16, 2
_TITLE, _CAPTION, _LABEL = 20, 14, 12
_LABEL_WIDTH = 62
_SMALLEST_FRAME = 96
"""Pixels of a shown frame's shorter side: smaller ones are enlarged, without smoothing."""


class Entry(NamedTuple):
    """A clip of the sheet; (S, H, W, 3) uint8 each."""

    caption: str
    original: np.ndarray
    output: np.ndarray


def contact_sheet(title: str, entries: Sequence[Entry]) -> Image.Image:
    """The clips from top to bottom, which must be of one size and number of frames."""
    frames, height, width, _ = entries[0].original.shape
    scale = max(1, -(-_SMALLEST_FRAME // min(height, width)))
    height, width = height * scale, width * scale
    block = _CAPTION + 10 + 2 * height + _GAP + MARGIN
    size = (
        2 * MARGIN + _LABEL_WIDTH + frames * (width + _GAP) - _GAP,
        2 * MARGIN + _TITLE + 8 + len(entries) * block - MARGIN,
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 4), title, _INK, _font(_TITLE))
    top = MARGIN + _TITLE + 8
    for entry in entries:
        caption = one_line(entry.caption)
        draw.text((MARGIN + _LABEL_WIDTH, top), caption, _INK, _font(_CAPTION))
        rows = top + _CAPTION + 10
        for label, row_SHW3 in (("original", entry.original), ("decoded", entry.output)):
            draw.text((MARGIN, rows + height // 2), label, _FAINT, _font(_LABEL), anchor="lm")
            for number, frame_HW3 in enumerate(row_SHW3):
                picture = Image.fromarray(frame_HW3)
                picture = picture.resize((width, height), Image.Resampling.NEAREST)
                sheet.paste(picture, (MARGIN + _LABEL_WIDTH + number * (width + _GAP), rows))
            rows += height + _GAP
        top += block
    return sheet


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own, so that sheets look the same everywhere."""
    return ImageFont.load_default(size)
