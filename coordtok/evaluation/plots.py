"""Plots of scores, drawn by matplotlib's Agg without a display and without pyplot's state."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coordtok.errors import ConfigError

_SIZE, _DPI = (9.0, 6.0), 100  # 900 x 600 pixels
_POINT, _LINE, _GRID = "#2563eb", "#dc2626", "#e4e4e7"


@dataclass(frozen=True)
class Axis:
    """What runs along one side of a plot."""

    label: str
    values: Sequence[float]


def write_scatter(path: Path, title: str, across: Axis, up: Axis) -> None:
    """A PNG of the points (across, up), and of the least-squares line through them if they differ.

    The same points give the same bytes.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "plots need matplotlib, which is not installed; pip install 'coordtok[evaluation]'"
        ) from None
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    axes.set_xlabel(across.label)
    axes.set_ylabel(up.label)
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    axes.scatter(across.values, up.values, s=45, color=_POINT, alpha=0.6, linewidths=0)
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())  # the line may leave the points' range
    if len(set(across.values)) > 1:
        slope, base = np.polyfit(across.values, up.values, 1)
        ends = np.array([min(across.values), max(across.values)])
        axes.plot(ends, slope * ends + base, color=_LINE, alpha=0.7, linewidth=2)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
