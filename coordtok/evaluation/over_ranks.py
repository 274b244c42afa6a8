"""Clips shared out to all ranks, and what the ranks found merged as if one had done it all: in the
order of the clip list, whichever rank had a clip."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np

from coordtok import distributed
from coordtok.data.clip_reader import ClipBatch
from coordtok.errors import DataError
from coordtok.evaluation.clip_features import FeatureSets
from coordtok.evaluation.scoring import Scores, best, worst
from coordtok.progress import ProgressBar

T = TypeVar("T")


class Reader(Protocol):
    """Batches of this rank's clips; every rank has as many."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[ClipBatch]: ...


def each_batch(reader: Reader, action: Callable[[ClipBatch], None], bar: ProgressBar) -> None:
    """Run `action` on each of this rank's batches. The ranks go in step, so that an error of any
    ends them all at once; `bar` counts the clips of all.

    Raises:
        UserError: on all ranks, what went wrong on any.
    """
    batches = iter(reader)

    def step() -> int:
        batch = next(batches)
        action(batch)
        return len(batch.numbers) + len(batch.skipped)

    for _ in range(len(reader)):
        done = distributed.together(step)
        bar.update(sum(distributed.gather(done)))


def merge_scores(own: Scores, shown: int) -> Scores:
    """The scores of all ranks, on all of them; pictures of the `shown` worst and best of all.

    Raises:
        DataError: no clip could be read.
    """
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
        merge_features(own.original_features),
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
