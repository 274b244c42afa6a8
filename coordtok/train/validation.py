"""Validation: every held-out clip once over all ranks, whatever their number, and a look at clips
that were just trained on, which tells memory from understanding.

Shapes: F shown frames, H rows, W columns, 3 colours.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from coordtok import distributed
from coordtok.config.errors import DataError
from coordtok.data.loader import Batch, EvalLoader
from coordtok.train.tasks.tokenizer import ClipScore, TokenizerTask


def validate(
    task: TokenizerTask, engine: Any, loader: EvalLoader, shown: int
) -> tuple[dict[str, float | int], list[np.ndarray]]:
    """Mean scores over the clips of all ranks, and rows (F, H, W, 3) uint8 of a picture: the first
    `shown` clips in index order, each original above its reconstruction.

    Sums are exact, so their order, and the number of ranks, does not show.
    """
    scores, (own, mean_frame, clips) = _score(task, engine, loader)
    if not clips:
        raise DataError("data.val_shards has no readable clip; rebuild it or set it to null")
    values = {
        "val_psnr": own,
        "val_psnr_mean_frame": mean_frame,
        "val_clips": clips,
        "points_per_pass": task.points_per_pass,
    }
    return values, _picture_rows(scores, shown)


def look_at_training(
    task: TokenizerTask, engine: Any, batch: Batch, shown: int
) -> tuple[dict[str, float | int], list[np.ndarray]]:
    """The same for the first clips of each rank's last micro-batch."""
    count = min(task.run.train.eval_batch, len(batch.ids))
    first = Batch(
        {name: value[:count] for name, value in batch.data.items()}, batch.ids[:count], ()
    )
    first.data["valid"] = torch.ones(count, dtype=torch.bool)
    scores, (own, _, _) = _score(task, engine, [first])
    return {"train_psnr": own}, _picture_rows(scores, shown)


def _score(
    task: TokenizerTask, engine: Any, batches: Iterable[Batch]
) -> tuple[list[ClipScore], tuple[float, float, int]]:
    """This rank's scores; mean PSNR, that of the mean frames, and clips of all ranks."""
    engine.eval()
    scores = [score for batch in batches for score in task.score(engine, batch) if score]
    engine.train()
    by_rank = distributed.gather([(score.psnr, score.psnr_mean_frame) for score in scores])
    pairs = [pair for rank_pairs in by_rank for pair in rank_pairs]
    count = max(len(pairs), 1)
    own, mean_frame = (math.fsum(values) / count for values in zip(*pairs or [(0.0, 0.0)]))
    return scores, (own, mean_frame, len(pairs))


def _picture_rows(scores: list[ClipScore], shown: int) -> list[np.ndarray]:
    """Rank r holds the clips r, r + R, ...: read across the ranks they are in index order."""
    share = math.ceil(shown / distributed.world_size())
    own = [(score.original_FHW3, score.reconstruction_FHW3) for score in scores[:share]]
    by_rank = distributed.gather(own)
    in_order = [pairs[i] for i in range(share) for pairs in by_rank if i < len(pairs)]
    return [row for pair in in_order[:shown] for row in pair]
