"""Validation: every held-out clip once over all ranks, whatever their number.

Shapes: F shown frames, H rows, W columns, 3 colours.
"""

import math
from typing import Any

import numpy as np

from coordtok import distributed
from coordtok.config.errors import DataError
from coordtok.data.loader import EvalLoader
from coordtok.train.tasks.tokenizer import ClipScore, TokenizerTask


def validate(
    task: TokenizerTask, engine: Any, loader: EvalLoader, shown: int
) -> tuple[dict[str, float | int], list[np.ndarray]]:
    """Mean scores over the clips of all ranks, and rows (F, H, W, 3) uint8 of a picture: the first
    `shown` clips in index order, each original above its reconstruction.

    Sums are exact, so their order, and the number of ranks, does not show.
    """
    engine.eval()
    scores = [score for batch in loader for score in task.score(engine, batch) if score]
    engine.train()
    by_rank = distributed.gather([(score.psnr, score.psnr_mean_frame) for score in scores])
    pairs = [pair for rank_pairs in by_rank for pair in rank_pairs]
    if not pairs:
        raise DataError("data.val_shards has no readable clip; rebuild it or set it to null")
    values = {
        "val_psnr": math.fsum(own for own, _ in pairs) / len(pairs),
        "val_psnr_mean_frame": math.fsum(mean for _, mean in pairs) / len(pairs),
        "val_clips": len(pairs),
        "points_per_pass": task.points_per_pass,
    }
    return values, _picture_rows(scores, shown)


def _picture_rows(scores: list[ClipScore], shown: int) -> list[np.ndarray]:
    """Rank r holds the clips r, r + R, ...: read across the ranks they are in index order."""
    share = math.ceil(shown / distributed.world_size())
    own = [(score.original_FHW3, score.reconstruction_FHW3) for score in scores[:share]]
    by_rank = distributed.gather(own)
    in_order = [pairs[i] for i in range(share) for pairs in by_rank if i < len(pairs)]
    return [row for pair in in_order[:shown] for row in pair]
