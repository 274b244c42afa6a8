"""What validation finds does not depend on the number of ranks."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordtok.data.clip_reader import ClipBatch, ClipReader
from coordtok.data.clips import one_per_sample
from coordtok.data.shards import open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import TrainingError
from coordtok.geometry.pixels import from_uint8
from coordtok.train import validation
from coordtok.train.tasks.task import ClipScore
from coordtok.train.validation import Look, validate

READ = VideoWindows(frames=4, height=2, width=4)


class Ranks:
    """The collectives that validation uses, among threads."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)
        self._values: list[Any] = [None] * count
        self.own = threading.local()

    def gather(self, value: Any) -> list[Any]:
        self._values[self.own.rank] = value
        self._barrier.wait()
        values = list(self._values)
        self._barrier.wait()
        return values

    def together(self, action: Callable[[], Any]) -> Any:
        results = self.gather(action())
        assert len({result is None for result in results}) == 1, "a rank has no batch"
        return results[self.own.rank]


class Engine:
    def eval(self) -> None: ...

    def train(self) -> None: ...


class Task:
    """Scores a clip by its pixels, which also are its picture."""

    def score(self, engine: Engine, batch: ClipBatch) -> dict[int, ClipScore]:
        video = batch.data["video"]
        return {
            number: ClipScore(
                {"mean": float(video[place].double().mean())}, [from_uint8(video[place])]
            )
            for place, number in batch.numbers.items()
        }


def looks(
    folder: Path, ranks: int, monkeypatch: pytest.MonkeyPatch, workers: int = 0
) -> list[Look]:
    """What each rank finds."""
    shared = Ranks(ranks)
    monkeypatch.setattr(validation, "distributed", shared)

    def look(rank: int) -> Look:
        shared.own.rank = rank
        opened = open_shards(str(folder))
        clips = one_per_sample(opened.index, READ.frames, seed=0)
        reader = ClipReader(
            opened, clips, READ, batch=2, rank=rank, world_size=ranks, workers=workers
        )
        return validate(Task(), Engine(), reader, shown=3)  # type: ignore[arg-type]

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(look, range(ranks)))


def test_ranks_and_workers_do_not_show(
    write_shards: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_shards(tmp_path, (5, 0, 4, 3), 1, damaged=["s000-001", "s003-002"])
    (alone,) = looks(folder, 1, monkeypatch)
    assert alone.clips == 10
    assert [sample.key for sample in alone.skipped] == ["s000-001", "s003-002"]
    assert len(alone.rows) == 3
    assert alone.movie is not None
    assert alone.movie.videos[0].shape == (4, 2, 4, 3)
    everyones = [look for ranks in (2, 3, 8) for look in looks(folder, ranks, monkeypatch)]
    for look in [*everyones, *looks(folder, 1, monkeypatch, workers=2)]:
        assert look[:3] == alone[:3]
        np.testing.assert_array_equal(look.rows, alone.rows)
        assert look.movie is not None
        np.testing.assert_array_equal(look.movie.videos, alone.movie.videos)


def test_nothing_readable_is_an_error(
    write_shards: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_shards(tmp_path, (2,), 1, damaged=["s000-000", "s000-001"])
    with pytest.raises(TrainingError, match="no readable clip"):
        looks(folder, 1, monkeypatch)
