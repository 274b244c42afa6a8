"""A scatter plot as a picture: points, axes with round numbers, and the line through the points."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from coordtok.evaluation.contact_sheet import FAINT, INK, PAPER, font

WIDTH, HEIGHT = 900, 600
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 30, 60, 70
_SMOOTHING = 2  # drawn larger by this, then scaled down: Pillow's circles and lines have steps
_GRID, _POINT, _LINE = (228, 228, 231), (37, 99, 235), (220, 38, 38)
_RADIUS = 4
_TICKS = 6
_MARGIN = 0.06


@dataclass(frozen=True)
class Axis:
    """What runs along one side of the plot."""

    label: str
    values: Sequence[float]

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and largest value, with some room."""
        low, high = min(self.values), max(self.values)
        room = (high - low) * _MARGIN or max(abs(high), 1.0) * _MARGIN
        return low - room, high + room

    def ticks(self) -> list[float]:
        """Round numbers within the ends, about `_TICKS`."""
        low, high = self.ends
        rough = (high - low) / _TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        return [step * n for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def scatter(title: str, across: Axis, up: Axis) -> Image.Image:
    """The points (across, up), and the least-squares line through them if they differ."""
    scale = _SMOOTHING
    picture = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), PAPER)
    draw = ImageDraw.Draw(picture, "RGBA")
    _draw_axes(draw, title, across, up)
    for x, y in zip(across.values, up.values):
        column, row, radius = _column(across, x), _row(up, y), _RADIUS * scale
        box = (column - radius, row - radius, column + radius, row + radius)
        draw.ellipse(box, fill=(*_POINT, 150))
    if len(set(across.values)) > 1:
        draw.line(_trend(across, up), (*_LINE, 180), 2 * scale)
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def _draw_axes(draw: ImageDraw.ImageDraw, title: str, across: Axis, up: Axis) -> None:
    scale = _SMOOTHING
    left, right = _LEFT * scale, (WIDTH - _RIGHT) * scale
    top, bottom = _TOP * scale, (HEIGHT - _BOTTOM) * scale
    small, large = font(15 * scale), font(20 * scale)
    for tick in across.ticks():
        column = _column(across, tick)
        draw.line([(column, top), (column, bottom)], _GRID, scale)
        draw.text((column, bottom + 8 * scale), f"{tick:g}", FAINT, small, anchor="mt")
    for tick in up.ticks():
        row = _row(up, tick)
        draw.line([(left, row), (right, row)], _GRID, scale)
        draw.text((left - 8 * scale, row), f"{tick:g}", FAINT, small, anchor="rm")
    draw.rectangle((left, top, right, bottom), outline=FAINT, width=scale)
    draw.text((left, top - 14 * scale), title, INK, large, anchor="ls")
    draw.text((right, bottom + 34 * scale), across.label, INK, small, anchor="rt")
    side = Image.new("L", (int(draw.textlength(up.label, small)) + 2, 22 * scale))
    ImageDraw.Draw(side).text((0, 0), up.label, 255, small)
    draw.bitmap((16 * scale, top), side.transpose(Image.Transpose.ROTATE_90), INK)


def _trend(across: Axis, up: Axis) -> list[tuple[float, float]]:
    """Both ends of the least-squares line in pixels, as far as it runs inside the axes."""
    slope, base = np.polyfit(across.values, up.values, 1)
    low, high = up.ends
    places = np.linspace(min(across.values), max(across.values), WIDTH).tolist()
    inside = [(x, y) for x in places if low <= (y := slope * x + base) <= high]
    return [(_column(across, x), _row(up, y)) for x, y in (inside[0], inside[-1])]


def _column(axis: Axis, value: float) -> float:
    low, high = axis.ends
    return _SMOOTHING * (_LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT))


def _row(axis: Axis, value: float) -> float:
    low, high = axis.ends
    share = (value - low) / (high - low)
    return _SMOOTHING * (HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM))
