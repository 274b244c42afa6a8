"""What the runs of a study reached, read from their metrics."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from coordtok.scaling.study import FRACTIONS, StudyRun
from coordtok.storage.files import write_whole
from coordtok.storage.json_files import parse_json

SCORE = "val_psnr"


def is_finished(run: StudyRun) -> bool:
    """Whether a run has the held-out score of its last step, and its checkpoint."""
    latest = run.folder / "checkpoints" / "latest"
    last = run.config.train.steps
    saved = latest.is_file() and latest.read_bytes().strip() == b"step_%08d" % last
    return saved and last in scores(run)


def scores(run: StudyRun) -> dict[int, dict[str, Any]]:
    """The validation lines of a run's metrics.jsonl, by step; lines that are torn are left out."""
    return {
        line["step"]: line
        for line in _lines(run.folder / "metrics.jsonl")
        if isinstance(line.get(SCORE), int | float)
    }


def ranking(runs: Sequence[StudyRun]) -> list[dict[str, Any]]:
    """A row for each config, in the order of the study, over its seeds that have come that far.

    Keys: name, seeds, steps, flops (of a run), seconds (of training, mean of finished runs), and
    `scores`: for each of `FRACTIONS` the mean, the spread (largest minus smallest) and the count.
    """
    names = list(dict.fromkeys(run.name for run in runs))
    return [_row(name, [run for run in runs if run.name == name]) for name in names]


def write_ranking(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Leave the ranking in the study's folder, as table.json and table.md."""
    write_whole(folder / "table.json", (json.dumps(rows, indent=1) + "\n").encode())
    write_whole(folder / "table.md", as_table(rows).encode())


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The ranking in Markdown."""
    head = ["run", "steps", "FLOPs", "seconds"]
    head += [f"{SCORE}, {_share(fraction)}" for fraction in FRACTIONS]
    body = [
        [
            row["name"],
            str(row["steps"]),
            f"{row['flops']:.3g}",
            "-" if row["seconds"] is None else f"{row['seconds']:.0f}",
            *(_cell(score) for score in row["scores"]),
        ]
        for row in rows
    ]
    widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
        for row in [head, *body]
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def _row(name: str, runs: Sequence[StudyRun]) -> dict[str, Any]:
    steps = runs[0].config.train.steps
    found = [scores(run) for run in runs]
    seconds = [value for run in runs if (value := _seconds(run)) is not None]
    return {
        "name": name,
        "seeds": [run.seed for run in runs],
        "steps": steps,
        "flops": runs[0].flops,
        "seconds": mean(seconds) if seconds else None,
        "scores": [_score(found, steps, fraction) for fraction in FRACTIONS],
    }


def _score(
    found: Sequence[Mapping[int, Mapping[str, Any]]], steps: int, fraction: float
) -> dict[str, float] | None:
    step = round(steps * fraction)
    values = [lines[step][SCORE] for lines in found if step in lines]
    if not values:
        return None
    return {"mean": mean(values), "spread": max(values) - min(values), "count": len(values)}


def _seconds(run: StudyRun) -> float | None:
    """Training time of a run's last step, validation and saving left out."""
    last = run.config.train.steps
    lines = [line for line in _lines(run.folder / "metrics.jsonl") if line.get("step") == last]
    return next(
        (value for line in lines if isinstance(value := line.get("seconds"), int | float)), None
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = parse_json(text, any_number=True)
        except ValueError:
            continue
        if isinstance(line, dict) and type(line.get("step")) is int:
            yield line


def _cell(score: Mapping[str, float] | None) -> str:
    if score is None:
        return "-"
    if not math.isfinite(score["mean"]):
        return "not finite"
    spread = f" ± {score['spread'] / 2:.2f}" if score["count"] > 1 else ""
    return f"{score['mean']:.2f}{spread}"


def _share(fraction: float) -> str:
    return "all" if fraction == 1 else f"1/{round(1 / fraction)}"
