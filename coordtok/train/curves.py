"""The course of a run as a picture: curves.png, drawn from metrics.jsonl.

Three panels over the steps: the training loss; the headline score on held-out clips and on those
just trained on, with what the baselines reach on the held-out ones; clips a second.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from coordtok.evaluation.plots import Curve, Panel, write_panels
from coordtok.storage.json_files import parse_json
from coordtok.train.tasks.task import Headline

MEANS = 50
"""Points of the line of means that is drawn over a loss of twice as many and more."""


def write_curves(metrics: Path, path: Path, headline: Headline) -> None:
    """Draw the run that wrote `metrics` to the PNG `path`; nothing before its first line.

    Raises:
        ConfigError: matplotlib is not installed.
        OSError: one of the files cannot be read or written.
    """
    lines = list(_lines(metrics))
    loss, rate = _curve(lines, "loss", "steps"), _curve(lines, "clips_per_s", "")
    if not loss.up:
        return
    scores = [
        _curve(lines, f"val_{headline.name}", "held-out"),
        _curve(lines, f"train_{headline.name}", "just trained on"),
        *(
            _curve(lines, f"val_{name}", f"held-out, {what}", is_baseline=True)
            for name, what in headline.baselines.items()
        ),
    ]
    panels = [
        Panel("training loss", [loss, *_means(loss)], log=min(loss.up) > 0),
        Panel(headline.axis, [curve for curve in scores if curve.up]),
        Panel("clips a second", [rate], from_zero=True),
    ]
    write_panels(path, metrics.parent.name, "step", [panel for panel in panels if panel.curves])


def _lines(metrics: Path) -> Iterator[dict[str, Any]]:
    """Lines that are torn are left out."""
    for line in metrics.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            yield parse_json(line, any_number=True)


def _curve(lines: list[dict[str, Any]], name: str, label: str, is_baseline: bool = False) -> Curve:
    points = [(line["step"], line[name]) for line in lines if name in line]
    return Curve(label, [step for step, _ in points], [value for _, value in points], is_baseline)


def _means(curve: Curve) -> list[Curve]:
    """Means over equal numbers of points, each at the last of them."""
    size = len(curve.up) // MEANS
    if size < 2:
        return []
    ends = range(size, len(curve.up) + 1, size)
    means = [float(np.mean(curve.up[end - size : end])) for end in ends]
    return [Curve(f"means of {size}", [curve.across[end - 1] for end in ends], means)]
