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
from coordtok.config.errors import TrainingError
from coordtok.data.loader import Batch, EvalLoader, SkippedSample
from coordtok.train.tasks.tokenizer import TokenizerTask


class Look(NamedTuple):
    """What scoring clips found, over all ranks; the pictures are this rank's own."""

    psnr: float
    psnr_mean_frame: float
    clips: int
    skipped: tuple[SkippedSample, ...]
    pictures: list[tuple[np.ndarray, np.ndarray]]


def validate(
    task: TokenizerTask, engine: Any, loader: EvalLoader, shown: int
) -> tuple[dict[str, float | int], list[np.ndarray], tuple[SkippedSample, ...]]:
    """Mean scores over the clips of all ranks; rows (F, H, W, 3) uint8 of a picture: the first
    `shown` clips in index order, each original above its reconstruction; unreadable samples.

    Sums are exact, so their order, and the number of ranks, does not show.

    Raises:
        UserError: on all ranks, what went wrong with the data of any.
    """
    look = _look(task, engine, loader, shown)
    if not look.clips:
        raise TrainingError("data.val_shards has no readable clip; rebuild it or set it to null")
    values = {
        "val_psnr": look.psnr,
        "val_psnr_mean_frame": look.psnr_mean_frame,
        "val_clips": look.clips,
        "val_skipped": len(look.skipped),
        "points_per_pass": task.points_per_pass,
    }
    return values, _picture_rows(look.pictures, shown), look.skipped


def look_at_training(
    task: TokenizerTask, engine: Any, batch: Batch, shown: int
) -> tuple[dict[str, float | int], list[np.ndarray]]:
    """The same for the first clips of each rank's last micro-batch."""
    count = min(task.run.train.eval_batch, len(batch.ids))
    data = {name: value[:count] for name, value in batch.data.items()}
    data["valid"] = torch.ones(count, dtype=torch.bool)
    look = _look(task, engine, [Batch(data, batch.ids[:count], ())], shown)
    return {"train_psnr": look.psnr}, _picture_rows(look.pictures, shown)


def _look(task: TokenizerTask, engine: Any, batches: Iterable[Batch], shown: int) -> Look:
    scores: list[tuple[float, float]] = []
    pictures: list[tuple[np.ndarray, np.ndarray]] = []
    skipped: list[SkippedSample] = []
    engine.eval()
    remaining = iter(batches)
    # Together, because the ranks meet in every forward pass: one without clips would be missed.
    while (batch := distributed.together(lambda: next(remaining, None))) is not None:
        skipped += batch.skipped
        for score in filter(None, task.score(engine, batch)):
            scores.append((score.psnr, score.psnr_mean_frame))
            if len(pictures) < _share(shown):
                pictures.append((score.original_FHW3, score.reconstruction_FHW3))
    engine.train()
    pairs = [pair for pairs in distributed.gather(scores) for pair in pairs]
    own, mean_frame = (math.fsum(column) / max(len(pairs), 1) for column in zip(*pairs or [(0, 0)]))
    all_skipped = tuple(sample for samples in distributed.gather(skipped) for sample in samples)
    return Look(own, mean_frame, len(pairs), all_skipped, pictures)


def _share(shown: int) -> int:
    return math.ceil(shown / distributed.world_size())


def _picture_rows(own: list[tuple[np.ndarray, np.ndarray]], shown: int) -> list[np.ndarray]:
    """Rank r holds the clips r, r + R, ...: read across the ranks they are in index order."""
    by_rank = distributed.gather(own)
    in_order = [pairs[i] for i in range(_share(shown)) for pairs in by_rank if i < len(pairs)]
    return [row for pair in in_order[:shown] for row in pair]
