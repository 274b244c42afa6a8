"""Batches for training and evaluation, each with what is needed to go on after it.

The workers of a rank read its positions of the global sequence (sequence.py) ahead of their use.
Where the run stands is kept here, in the training process, and moves only with the samples that
are handed over: a saved state never runs ahead of training, whatever was prefetched.

Shapes: B the clips of a micro-batch, otherwise those of the sample reader.
"""

import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import torch

from coordtok.data.index import UNEVEN, lane_sizes, unevenness
from coordtok.data.member import UnreadableSample
from coordtok.data.order import next_position, sample_rng, usable_workers
from coordtok.data.sequence import (
    Item,
    Move,
    SampleId,
    SampleReader,
    SampleSequence,
    SkippedSample,
    shard_sizes,
)
from coordtok.data.shards import OpenedShards, open_shards
from coordtok.data.state import LoaderState
from coordtok.data.video_reader import VideoWindows
from coordtok.data.workers import read_ahead
from coordtok.errors import CheckpointError, DataError, one_line

__all__ = [
    "Batch",
    "EvalLoader",
    "LoaderState",
    "OpenedShards",
    "SampleId",
    "SkippedSample",
    "TrainLoader",
    "VideoWindows",
    "open_shards",
]

logger = logging.getLogger(__name__)


@dataclass
class Batch:
    """Clips, what identifies them, and the samples that were skipped on the way to them."""

    data: dict[str, torch.Tensor]
    """For video: `video` uint8 (B, T, H, W, 3), `num_frames` and `label` int64 (B,)."""
    ids: tuple[SampleId, ...]
    skipped: tuple[SkippedSample, ...]


class TrainLoader:
    """This rank's endless share of the global sequence, in micro-batches.

    Iterating yields (Batch, LoaderState after it). Every iteration begins at `state`.
    """

    def __init__(
        self,
        sources: Sequence[OpenedShards],
        read: SampleReader,
        *,
        seed: int,
        rank: int,
        world_size: int,
        micro_batch: int,
        workers: int,
        prefetch: int,
        shuffle_block: int,
        state: LoaderState | None = None,
        pin_memory: bool = False,
    ) -> None:
        """
        Args:
            workers: processes, lowered to what divides the lanes; 0 reads in this process.
            prefetch: clips each worker reads ahead.
            state: where to go on; the beginning by default.
            pin_memory: put batches where a GPU can fetch them.

        Raises:
            ConfigError: the ranks do not divide the lanes.
            DataError: a lane without samples, or samples the reader cannot use.
            CheckpointError: `state` is of other data.
        """
        start = LoaderState.start(sources)
        self.state = start if state is None else state
        self.state.check(start)
        self.workers = usable_workers(start.lanes, world_size, workers)
        for source in sources:
            read.check(source.index, source.location)
            _check_lanes(source, start.lanes, warn=rank == 0)
        self._sources, self._read = sources, read
        self._seed, self._shuffle_block = seed, shuffle_block
        self._rank, self._world_size = rank, world_size
        self._micro_batch, self._prefetch = micro_batch, prefetch
        self._pin_memory = pin_memory
        if not self._sequence().fits():
            raise CheckpointError(
                "the saved position lies outside the shards; go on with the data.shards it began "
                "with, or take its weights alone with train.init_from"
            )

    def __iter__(self) -> Generator[tuple[Batch, LoaderState], None, None]:
        items = read_ahead(
            self._items, self._read.blank(), workers=self.workers, prefetch=self._prefetch
        )
        cursors = [list(lanes) for lanes in self.state.cursors]
        stride = self._micro_batch * self._world_size
        for position in count(self.state.position + stride, stride):
            batch, moves = self._next(items)
            for dataset, lane, cursor in moves:
                cursors[dataset][lane] = cursor
            yield batch, LoaderState(position, tuple(tuple(lanes) for lanes in cursors))

    def _next(self, items: Iterator[Item]) -> tuple[Batch, list[Move]]:
        if self._micro_batch == 1 and self.workers == 0 and not self._pin_memory:
            return _own_batch(next(items))
        return _batch(items, self._micro_batch, self._pin_memory)

    def _items(self, worker: int, workers: int) -> Iterator[Item]:
        """What one of `workers` reads: they share this rank's positions in turns."""
        sequence = self._sequence()
        first = next_position(self.state.position, self._rank, self._world_size)
        for turn in count(worker, workers):
            yield sequence.read(first + turn * self._world_size)

    def _sequence(self) -> SampleSequence:
        return SampleSequence(
            self._sources,
            self._read,
            seed=self._seed,
            shuffle_block=self._shuffle_block,
            state=self.state,
        )


class EvalLoader:
    """Every sample of a dataset once over all ranks; each iteration yields the same batches.

    Rank r has the samples r, r + R, r + 2R ... in the order of the index. All ranks have the same
    number of batches, all of them full: `data["valid"]`, bool (B,), is False for what only fills
    them up and for samples that cannot be read.
    """

    def __init__(
        self,
        source: OpenedShards,
        read: SampleReader,
        *,
        seed: int,
        rank: int,
        world_size: int,
        batch: int,
        workers: int = 0,
        prefetch: int = 2,
    ) -> None:
        """Raises DataError for samples that the reader cannot use."""
        read.check(source.index, source.location)
        self._source, self._read, self._seed = source, read, seed
        self._rank, self._world_size, self._batch = rank, world_size, batch
        self._workers, self._prefetch = workers, prefetch
        self._places = [
            (shard, sample)
            for shard, entry in enumerate(source.index.shards)
            for sample in range(len(entry.samples))
        ]

    def __len__(self) -> int:
        """Batches of each rank."""
        share = -(-len(self._places) // self._world_size)
        return -(-share // self._batch)

    def __iter__(self) -> Iterator[Batch]:
        items = read_ahead(
            self._items, self._read.blank(), workers=self._workers, prefetch=self._prefetch
        )
        for _ in range(len(self)):
            yield _batch(items, self._batch)[0]

    def _items(self, worker: int, workers: int) -> Iterator[Item]:
        try:
            for turn in range(worker, len(self) * self._batch, workers):
                yield self._item(self._rank + turn * self._world_size)
        finally:
            self._source.reader.close()

    def _item(self, number: int) -> Item:
        if number >= len(self._places):
            return Item({**self._read.blank(), "valid": False}, SampleId(0, 0, ""))
        shard, sample = self._places[number]
        entry = self._source.index.shards[shard]
        sample_id = SampleId(0, 0, entry.samples[sample].key)
        rng = sample_rng(self._seed, *sample_id, "window")
        try:
            values = self._read(self._source.reader.sample(shard, sample), rng)
        except UnreadableSample as error:
            skipped = SkippedSample(
                self._source.location, entry.name, sample_id.key, one_line(error)
            )
            return Item({**self._read.blank(), "valid": False}, sample_id, (skipped,))
        return Item({**values, "valid": True}, sample_id)


def _check_lanes(source: OpenedShards, lanes: int, warn: bool) -> None:
    shards = shard_sizes(source.index)
    sizes = lane_sizes(shards, lanes)
    if not all(sizes):
        raise DataError(
            f"lane {sizes.index(0)} of {source.location} has no samples; rebuild the shards, or "
            "their index with fewer --lanes"
        )
    if warn and unevenness(shards, lanes) > UNEVEN and max(sizes) > min(sizes) + 1:
        logger.warning(
            "lanes of %s hold between %d and %d samples: those of small lanes are seen more often; "
            "rebuild the shards to even them out",
            source.location,
            min(sizes),
            max(sizes),
        )


def _own_batch(item: Item) -> tuple[Batch, list[Move]]:
    """One item that was read in this process, whose arrays are nobody else's: nothing is copied."""
    data = {name: torch.as_tensor(value)[None] for name, value in item.values.items()}
    return Batch(data, (item.id,), item.skipped), [item.move] if item.move else []


def _batch(items: Iterator[Item], size: int, pin_memory: bool = False) -> tuple[Batch, list[Move]]:
    """The next `size` items as one batch, and the moves of their lanes."""
    data: dict[str, torch.Tensor] = {}
    ids: list[SampleId] = []
    skipped: list[SkippedSample] = []
    moves: list[Move] = []
    for place in range(size):
        item = next(items)
        # At once, because an item's arrays hold only until the next one.
        for name, value in item.values.items():
            part = torch.as_tensor(value)
            if name not in data:
                shape = (size, *part.shape)
                data[name] = torch.empty(shape, dtype=part.dtype, pin_memory=pin_memory)
            data[name][place] = part
        ids.append(item.id)
        skipped += item.skipped
        moves += [item.move] if item.move else []
    return Batch(data, tuple(ids), tuple(skipped)), moves
