"""Plots of scores, drawn by matplotlib's Agg without a display and without pyplot's state."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coordtok.errors import ConfigError
from coordtok.storage.files import partial_path

_SIZE, _DPI = (9.0, 6.0), 100  # 900 x 600 pixels
_POINT, _LINE, _GRID = "#2563eb", "#dc2626", "#e4e4e7"
_MOST_MARKERS = 50
_CURVES = (_POINT, "#f59e0b", _LINE, "#52525b")


@dataclass(frozen=True)
class Axis:
    """What runs along one side of a plot."""

    label: str
    values: Sequence[float]


@dataclass(frozen=True)
class Curve:
    """A line through points; one of a baseline is dashed."""

    label: str
    across: Sequence[float]
    up: Sequence[float]
    is_baseline: bool = False


@dataclass(frozen=True)
class Panel:
    """One of several plots over the same axis."""

    label: str
    curves: Sequence[Curve]
    log: bool = False
    """Whether its axis is logarithmic; it begins at 0 if `from_zero`."""
    from_zero: bool = False


def write_scatter(path: Path, title: str, across: Axis, up: Axis) -> None:
    """A PNG of the points (across, up), and of the least-squares line through them if they differ.

    The same points give the same bytes.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    figure = _figure(_SIZE)
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
    _write(figure, path)


def write_panels(path: Path, title: str, across: str, panels: Sequence[Panel]) -> None:
    """A PNG of plots above one another, over an axis `across` that they share. It takes its name
    once it is complete. The same points give the same bytes.

    Raises:
        ConfigError: matplotlib is not installed.
        OSError: it cannot be written.
    """
    figure = _figure((10, 1 + 2.5 * len(panels)))
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(rows, panels):
        for number, curve in enumerate(panel.curves):
            axes.plot(
                curve.across,
                curve.up,
                label=curve.label,
                color=_CURVES[number % len(_CURVES)],
                linestyle="--" if curve.is_baseline else "-",
                marker="." if len(curve.up) <= _MOST_MARKERS and not curve.is_baseline else "",
                linewidth=1.5,
            )
        axes.set_ylabel(panel.label)
        axes.set_yscale("log" if panel.log else "linear")
        if panel.from_zero:
            axes.set_ylim(bottom=0)
        axes.grid(color=_GRID)
        axes.set_axisbelow(True)
        if len(panel.curves) > 1:
            axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    rows[0].set_title(title, loc="left")
    rows[-1].set_xlabel(across)
    with partial_path(path) as partial:
        _write(figure, partial)


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "plots need matplotlib, which is not installed; pip install 'coordtok[evaluation]'"
        ) from None
    return Figure(figsize=size, dpi=_DPI, layout="constrained")


def _write(figure: Any, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
