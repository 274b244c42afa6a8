"""What all ranks found, as if one had: in the order of the clip list, whoever scored a clip."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from coordtok import distributed
from coordtok.config.errors import DataError
from coordtok.evaluation.clip_features import FeatureSets
from coordtok.evaluation.scoring import Scores, best, worst

T = TypeVar("T")


def score_together(score: Callable[[], Scores], shown: int) -> Scores:
    """What `score()` finds on each rank, merged, on all of them; pictures of the `shown` worst and
    best of all.

    Raises:
        UserError: on all ranks, what went wrong on any.
        DataError: no clip could be read.
    """
    own = distributed.together(score)
    clips = sorted(_of_all_ranks(own.clips))
    skipped = sorted(_of_all_ranks(own.skipped))
    if not clips:
        raise DataError(f"none of the clips can be read; the first: {skipped[0]}")
    # Every rank sends to every other, so only the pictures of all ranks' worst and best travel.
    ends = {clip.number for rank in (worst, best) for clip in rank(clips, shown)}
    pictures = _of_all_ranks([each for each in own.pictures.items() if each[0] in ends])
    return Scores(
        clips,
        skipped,
        dict(pictures),
        merge_features(own.source_features),
        merge_features(own.output_features),
    )


def merge_features(own: FeatureSets) -> FeatureSets:
    """The features of all ranks' clips, in the order of the list."""
    lengths = sorted({length for lengths in distributed.gather(list(own)) for length in lengths})
    return {
        length: dict(sorted(_of_all_ranks(list(own.get(length, {}).items())), key=_number))
        for length in lengths
    }


def _number(numbered: tuple[int, np.ndarray]) -> int:
    return numbered[0]


def _of_all_ranks(own: Sequence[T]) -> list[T]:
    return [each for part in distributed.gather(own) for each in part]
