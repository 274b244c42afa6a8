"""Validation: every held-out clip once over all ranks, whatever their number, and a look at clips
that were just trained on, whose difference shows memorisation.

Shapes: F shown frames, H rows, W columns, 3 colours.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from coordtok import distributed
from coordtok.data.clip_reader import ClipBatch, ClipReader
from coordtok.data.loader import Batch
from coordtok.data.sample import SkippedSample
from coordtok.errors import TrainingError
from coordtok.train.tasks.task import Task


class HeldOut(NamedTuple):
    """Held-out clips, and how this rank reads them."""

    all: ClipReader
    first: ClipReader
    """Those that pictures show."""
    clips: int
    """Of all ranks."""


class Look(NamedTuple):
    """What scoring clips found, over all ranks."""

    values: dict[str, float]
    """Mean over the clips of each score."""
    clips: int
    skipped: tuple[SkippedSample, ...]
    rows: list[np.ndarray]
    """(F, H, W, 3) uint8: the picture lines of the first clips by number."""


def validate(task: Task, engine: Any, reader: ClipReader, shown: int) -> Look:
    """Scores of all held-out clips, and a picture of the first `shown`.

    Sums are exact, so their order, and the number of ranks, does not show.

    Raises:
        UserError: on all ranks, what went wrong with the data of any.
    """
    found = look(task, engine, reader, shown)
    if not found.clips:
        raise TrainingError("data.val_shards has no readable clip; rebuild it or set it to null")
    return found


def look_at_training(task: Task, engine: Any, batch: Batch, count: int, shown: int) -> Look:
    """The same for the first `count` clips of each rank's last micro-batch."""
    count = min(count, len(batch.ids))
    data = {name: value[:count] for name, value in batch.data.items()}
    first, step = distributed.rank(), distributed.world_size()
    numbers = {place: first + step * place for place in range(count)}
    return look(task, engine, [ClipBatch(data, batch.ids[:count], (), numbers, {})], shown)


def look(task: Task, engine: Any, batches: Iterable[ClipBatch], shown: int) -> Look:
    """Scores of each rank's batches, as many on all of them, and a picture of the first `shown`."""
    scores: dict[int, dict[str, float]] = {}
    pictures: dict[int, list[np.ndarray]] = {}
    skipped: list[SkippedSample] = []
    engine.eval()
    remaining = iter(batches)
    # Together, because the ranks meet in every forward pass: one without clips would be missed.
    while (batch := distributed.together(lambda: next(remaining, None))) is not None:
        skipped += batch.skipped
        for number, score in task.score(engine, batch).items():
            scores[number] = score.values
            if len(pictures) < shown:
                pictures[number] = score.rows
    engine.train()
    everyones = {n: values for share in distributed.gather(scores) for n, values in share.items()}
    all_skipped = sorted(sample for share in distributed.gather(skipped) for sample in share)
    rows = _picture_rows(pictures, sorted(everyones)[:shown])
    return Look(_means(list(everyones.values())), len(everyones), tuple(all_skipped), rows)


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    names = scores[0] if scores else {}
    return {name: math.fsum(values[name] for values in scores) / len(scores) for name in names}


def _picture_rows(own: dict[int, list[np.ndarray]], wanted: list[int]) -> list[np.ndarray]:
    """Of the clips `wanted`, in that order; each is some rank's own."""
    # Every rank sends to every other, so only what is wanted travels.
    everyones = distributed.gather({number: own[number] for number in wanted if number in own})
    rows = {number: lines for share in everyones for number, lines in share.items()}
    return [row for number in wanted for row in rows[number]]
