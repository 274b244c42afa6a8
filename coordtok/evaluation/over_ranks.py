"""What all ranks found, as if one had: in the order of the clip list, whoever scored a clip."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from coordtok import distributed
from coordtok.config.errors import DataError
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
    features = {
        frames: sorted(_of_all_ranks(found), key=lambda each: each.number)
        for frames, found in own.features.items()
    }
    return Scores(clips, skipped, dict(pictures), features)


def _of_all_ranks(own: Sequence[T]) -> list[T]:
    return [each for part in distributed.gather(own) for each in part]
