"""Validation: every held-out clip once over all ranks, whatever their number, and a look at clips
that were just trained on, which tells memory from understanding.

Shapes: F shown frames, H rows, W columns, 3 colours.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from coordtok import distributed
from coordtok.data.loader import Batch, EvalLoader, SkippedSample
from coordtok.errors import TrainingError
from coordtok.train.tasks.task import Task


class Look(NamedTuple):
    """What scoring clips found, over all ranks."""

    values: dict[str, float]
    """Mean over the clips of each score."""
    clips: int
    skipped: tuple[SkippedSample, ...]
    rows: list[np.ndarray]
    """(F, H, W, 3) uint8: the picture lines of the first clips in index order."""


def validate(task: Task, engine: Any, loader: EvalLoader, shown: int) -> Look:
    """Scores of all held-out clips, and a picture of the first `shown`.

    Sums are exact, so their order, and the number of ranks, does not show.

    Raises:
        UserError: on all ranks, what went wrong with the data of any.
    """
    look = _look(task, engine, loader, shown)
    if not look.clips:
        raise TrainingError("data.val_shards has no readable clip; rebuild it or set it to null")
    return look


def look_at_training(task: Task, engine: Any, batch: Batch, count: int, shown: int) -> Look:
    """The same for the first `count` clips of each rank's last micro-batch."""
    count = min(count, len(batch.ids))
    data = {name: value[:count] for name, value in batch.data.items()}
    data["valid"] = torch.ones(count, dtype=torch.bool)
    return _look(task, engine, [Batch(data, batch.ids[:count], ())], shown)


def _look(task: Task, engine: Any, batches: Iterable[Batch], shown: int) -> Look:
    scores: list[dict[str, float]] = []
    pictures: list[list[np.ndarray]] = []
    skipped: list[SkippedSample] = []
    engine.eval()
    remaining = iter(batches)
    # Together, because the ranks meet in every forward pass: one without clips would be missed.
    while (batch := distributed.together(lambda: next(remaining, None))) is not None:
        skipped += batch.skipped
        for score in filter(None, task.score(engine, batch)):
            scores.append(score.values)
            if len(pictures) < _share(shown):
                pictures.append(score.rows)
    engine.train()
    everyones = [values for share in distributed.gather(scores) for values in share]
    all_skipped = tuple(sample for samples in distributed.gather(skipped) for sample in samples)
    return Look(_means(everyones), len(everyones), all_skipped, _picture_rows(pictures, shown))


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    names = scores[0] if scores else {}
    return {name: math.fsum(values[name] for values in scores) / len(scores) for name in names}


def _share(shown: int) -> int:
    return math.ceil(shown / distributed.world_size())


def _picture_rows(own: list[list[np.ndarray]], shown: int) -> list[np.ndarray]:
    """Rank r holds the clips r, r + R, ...: read across the ranks they are in index order."""
    by_rank = distributed.gather(own)
    in_order = [clips[i] for i in range(_share(shown)) for clips in by_rank if i < len(clips)]
    return [row for rows in in_order[:shown] for row in rows]
