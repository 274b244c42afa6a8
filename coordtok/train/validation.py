"""Validation: every held-out clip once over all ranks, whatever their number, and a look at clips
that were just trained on, whose difference shows memorisation.

Shapes: T frames, F shown frames, H rows, W columns, 3 colours.
"""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch

from coordtok import distributed
from coordtok.data.clip_reader import ClipBatch, ClipReader
from coordtok.data.loader import Batch
from coordtok.data.sample import SkippedSample, rate_of
from coordtok.errors import TrainingError
from coordtok.geometry.pixels import to_uint8
from coordtok.train.tasks.task import Task

SHOWN_FRAMES = 8
ASSUMED_FPS = 25
"""Of a clip that does not state its frames per second."""


class HeldOut(NamedTuple):
    """Held-out clips, and how this rank reads them."""

    all: ClipReader
    first: ClipReader
    """Those that pictures show."""
    clips: int
    """Of all ranks."""


class Movie(NamedTuple):
    """Videos (T, H, W, 3) uint8 of one clip, to be played side by side."""

    videos: list[np.ndarray]
    fps: Fraction


class Look(NamedTuple):
    """What scoring clips found, over all ranks."""

    values: dict[str, float]
    """Mean over the clips of each score."""
    clips: int
    skipped: tuple[SkippedSample, ...]
    rows: list[np.ndarray]
    """(F, H, W, 3) uint8: the picture lines of the first clips by number."""
    movie: Movie | None
    """Of the first of them, where there is something to see."""


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
    movies: dict[int, Movie] = {}
    skipped: list[SkippedSample] = []
    engine.eval()
    remaining = iter(batches)
    # Together, because the ranks meet in every forward pass: one without clips would be missed.
    while (batch := distributed.together(lambda: next(remaining, None))) is not None:
        skipped += batch.skipped
        infos = {number: batch.infos.get(place, {}) for place, number in batch.numbers.items()}
        for number, score in task.score(engine, batch).items():
            scores[number] = score.values
            if len(movies) < shown and score.videos:
                videos = [to_uint8(video).cpu().numpy() for video in score.videos]
                movies[number] = Movie(videos, Fraction(rate_of(infos[number]) or ASSUMED_FPS))
    engine.train()
    everyones = {n: values for share in distributed.gather(scores) for n, values in share.items()}
    all_skipped = sorted(sample for share in distributed.gather(skipped) for sample in share)
    wanted = sorted(everyones)[:shown]
    return Look(
        _means(list(everyones.values())),
        len(everyones),
        tuple(all_skipped),
        _picture_rows(movies, wanted),
        _first_movie(movies, wanted),
    )


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    names = scores[0] if scores else {}
    return {name: math.fsum(values[name] for values in scores) / len(scores) for name in names}


def _picture_rows(own: dict[int, Movie], wanted: list[int]) -> list[np.ndarray]:
    """Some frames of the clips `wanted`, in that order; each is some rank's own."""
    # Every rank sends to every other, so only what is wanted travels.
    lines = {number: _some_frames(own[number]) for number in wanted if number in own}
    rows = {number: rows for share in distributed.gather(lines) for number, rows in share.items()}
    return [row for number in wanted for row in rows.get(number, [])]


def _some_frames(movie: Movie) -> list[np.ndarray]:
    shown = torch.linspace(0, len(movie.videos[0]) - 1, SHOWN_FRAMES).long().numpy()
    return [video_THW3[shown] for video_THW3 in movie.videos]


def _first_movie(own: dict[int, Movie], wanted: list[int]) -> Movie | None:
    movie = own.get(wanted[0]) if wanted else None
    return next(filter(None, distributed.gather(movie)), None)
