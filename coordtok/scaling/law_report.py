"""What the finished runs of a study say of larger ones: a report, a table of the runs, and plots.

Losses are the squared error of the held-out clips' mean PSNR, 10^(-PSNR / 10): of pixels in [0, 1].
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from coordtok.errors import ConfigError, DataError
from coordtok.scaling.law import (
    INTERVAL,
    SAME_BUDGET,
    Fit,
    Point,
    fit_law,
    largest_budget,
    left_out,
    parabola_minimum,
)
from coordtok.scaling.parameters import parameters
from coordtok.scaling.ranking import SCORE, is_finished, scores
from coordtok.scaling.study import StudyRun
from coordtok.storage.files import write_whole
from coordtok.storage.json_files import read_json

_AHEAD = (3, 10, 30)
"""Budgets that are looked ahead to, in units of the largest that was spent."""


def points_of(runs: Sequence[StudyRun], fewest_updates: int = 1) -> list[Point]:
    """Of the finished runs of at least so many updates: those that end while they warm up lie on no
    law.

    Raises:
        DataError: there is none.
    """
    finished = [run for run in runs if is_finished(run)]
    if not finished:
        raise DataError("no run of the study is finished; train it: scripts/scaling.py run STUDY")
    long = [run for run in finished if run.config.train.steps >= fewest_updates]
    if not long:
        raise DataError(f"no run of the study has {fewest_updates:,} updates; ask for fewer")
    return [_point(run) for run in long]


def write_law(points: Sequence[Point], folder: Path, note: str = "") -> str:
    """Fit a law, and leave law.md, with `note` below its title, runs.csv and law.png in `folder`;
    the text of law.md.

    Raises:
        DataError: the runs cannot carry a law; runs.csv is left in any case.
        ConfigError: matplotlib is not installed.
    """
    write_whole(folder / "runs.csv", _as_csv(points).encode())
    fit = fit_law(points)
    text = "\n".join(_lines(points, fit, note)) + "\n"
    _plot(points, fit, folder / "law.png")
    write_whole(folder / "law.md", text.encode())
    return text


def _point(run: StudyRun) -> Point:
    last = run.config.train.steps
    psnr = scores(run)[last][SCORE]
    size = sum(parameters(run.config.model).values())
    clips = last * run.config.train.global_batch
    loss = 10 ** (-psnr / 10)
    return Point(f"{run.name}-{run.seed}", size, clips, run.flops, loss, clips / _samples(run))


def _samples(run: StudyRun) -> float:
    """In the run's shards, if their index lies on this machine."""
    try:
        indices = [read_json(Path(each.path) / "index.json") for each in run.config.data.shards]
        return float(sum(len(shard["samples"]) for index in indices for shard in index["shards"]))
    except (OSError, ValueError, KeyError, TypeError):
        return math.nan


def _as_csv(points: Sequence[Point]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([Point._fields, *points])
    return text.getvalue()


def _lines(points: Sequence[Point], fit: Fit, note: str) -> Iterator[str]:
    law = fit.law
    yield f"# Law of {len(points)} runs"
    yield ""
    if note:
        yield from (note, "")
    yield f"    L = {law.E:.4g} + {law.A:.4g} / N^{law.a:.3f} + {law.B:.4g} / D^{law.b:.3f}"
    yield ""
    yield (
        f"N parameters, D clips seen, L held-out squared error. Relative error of the runs "
        f"{100 * fit.error:.2f} %. In brackets {_percent(INTERVAL)} of refits on runs drawn with "
        "replacement:"
    )
    yield ""
    for name in ("E", "a", "b"):
        low, high = fit.interval(lambda law, name=name: getattr(law, name))  # type: ignore[misc]
        yield f"- {name} = {getattr(law, name):.4g} [{low:.4g}, {high:.4g}]"
    epochs = [each.epochs for each in points if math.isfinite(each.epochs)]
    if epochs:
        yield ""
        yield (
            f"D counts repetitions: the runs saw each sample of their shards {min(epochs):.1f} to "
            f"{max(epochs):.1f} times, a window of it each time."
        )
    yield from _check(points)
    yield from _best_sizes(points, fit)
    yield from _parabolas(points, fit)


def _check(points: Sequence[Point]) -> Iterator[str]:
    """The largest run left out of the fit, and all runs of the largest budget."""
    runs = largest_budget(points)
    for held_back, what in ((runs[:1], "largest run"), (runs, "largest budget")):
        yield ""
        try:
            intervals = left_out(points, held_back)
        except DataError as error:
            yield f"Without its {what} the study cannot carry a law: {error}."
            continue
        yield f"The {what} left out of the fit, losses beside what the other runs predict:"
        yield ""
        for run, (low, high) in zip(held_back, intervals):
            inside = "inside" if low <= run.loss <= high else "OUTSIDE"
            yield f"- {run.name}: {run.loss:.5g}, {inside} [{low:.5g}, {high:.5g}]"


def _best_sizes(points: Sequence[Point], fit: Fit) -> Iterator[str]:
    yield ""
    for depends, what in zip(fit.depends_on(points), ("size", "clips")):
        if not depends:
            yield f"The loss of these runs does not depend on {what}: no best size follows."
            return
    most = max(each.flops for each in points)
    yield "| FLOPs | best N | interval | its D | loss |"
    yield "|---|---|---|---|---|"
    for times in (1, *_AHEAD):
        flops = times * most
        size = fit.law.best_parameters(flops, fit.per_parameter)
        usable = [law for law in fit.draws if min(law.A, law.B) > 0]
        sizes = sorted(law.best_parameters(flops, fit.per_parameter) for law in usable)
        low, high = (sizes[int(share * (len(sizes) - 1))] for share in INTERVAL)
        clips = flops / (fit.per_parameter * size)
        note = "" if times == 1 else " (beyond the runs)"
        yield (
            f"| {flops:.2g}{note} | {size:,.3g} | {low:,.3g} to {high:,.3g} | {clips:,.3g} | "
            f"{fit.law.loss(size, clips):.5g} |"
        )


def _parabolas(points: Sequence[Point], fit: Fit) -> Iterator[str]:
    """Of the runs of each budget: runs of one are equal in compute but for rounding to steps."""
    yield ""
    yield "Best sizes by a parabola through each budget's runs, biased even on clean data:"
    yield ""
    for budget, runs in _budgets(points):
        size = parabola_minimum(runs)
        found = "none between its runs" if size is None else f"{size:,.3g}"
        yield f"- {budget:.2g} FLOPs, {len(runs)} runs: {found}"


def _budgets(points: Sequence[Point]) -> list[tuple[float, list[Point]]]:
    ordered = sorted(points, key=lambda each: each.flops)
    groups: list[list[Point]] = []
    for each in ordered:
        if groups and SAME_BUDGET * each.flops < groups[-1][0].flops:
            groups[-1].append(each)
        else:
            groups.append([each])
    return [(sum(each.flops for each in group) / len(group), group) for group in groups]


def _percent(interval: tuple[float, float]) -> str:
    return f"the middle {100 * (interval[1] - interval[0]):.0f} %"


def _plot(points: Sequence[Point], fit: Fit, path: Path) -> None:
    """Loss against compute: runs, the law of each size, and its lowest losses, dashed beyond."""
    try:
        import numpy as np
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install 'coordtok[evaluation]'") from None
    figure = Figure(figsize=(9.0, 6.0), dpi=100, layout="constrained")
    axes = figure.subplots()
    most = max(each.flops for each in points)
    by_size = sorted(points, key=lambda each: each.parameters)
    for size, group in groupby(by_size, key=lambda each: each.parameters):
        runs = sorted(group, key=lambda each: each.flops)
        shown = axes.scatter(
            [each.flops for each in runs], [each.loss for each in runs], s=30, label=f"{size:,.3g}"
        )
        flops = np.geomspace(runs[0].flops, runs[-1].flops, 40)
        losses = [fit.law.loss(size, each / (fit.per_parameter * size)) for each in flops]
        axes.plot(flops, losses, color=shown.get_facecolor()[0], linewidth=1, alpha=0.6)
    if all(fit.depends_on(points)):
        for span, style in (
            (np.geomspace(min(each.flops for each in points), most, 40), "-"),
            (np.geomspace(most, _AHEAD[-1] * most, 40), "--"),
        ):
            sizes = [fit.law.best_parameters(each, fit.per_parameter) for each in span]
            losses = [
                fit.law.loss(size, each / (fit.per_parameter * size))
                for size, each in zip(sizes, span)
            ]
            axes.plot(span, losses, style, color="black", linewidth=1.5)
    axes.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel="held-out squared error")
    axes.set_title(f"{len(points)} runs; black: the best size by the law, dashed beyond the runs")
    axes.legend(title="parameters")
    axes.grid(color="#e4e4e7", which="both")
    axes.set_axisbelow(True)
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
