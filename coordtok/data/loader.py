"""Batches for training, each with what is needed to go on after it.

The workers of a rank read its positions of the global sequence (sequence.py) ahead of their use.
Where the run stands is kept here, in the training process, and moves only with the samples that
are handed over: a saved state never runs ahead of training, whatever was prefetched.

Shapes: B the clips of a micro-batch, otherwise those of the sample reader.
"""

import logging
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch

from coordtok.data.index import UNEVEN, lane_sizes, unevenness
from coordtok.data.order import Cursor, next_position, usable_workers
from coordtok.data.reused_memory import ReusedMemory
from coordtok.data.sample import Item, Move, SampleId, SampleReader, SkippedSample
from coordtok.data.sequence import LoaderState, SampleSequence, shard_sizes
from coordtok.data.shards import OpenedShards
from coordtok.data.workers import read_ahead
from coordtok.errors import CheckpointError, DataError

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
        datasets: Sequence[OpenedShards],
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
        start = LoaderState.start(datasets)
        self.state = start if state is None else state
        self.state.check(start)
        self.workers = usable_workers(start.lanes, world_size, workers)
        for dataset in datasets:
            read.check(dataset.index, dataset.location)
            _check_lanes(dataset, start.lanes, warn=rank == 0)
        self._datasets, self._read = datasets, read
        self._seed, self._shuffle_block = seed, shuffle_block
        self._rank, self._world_size = rank, world_size
        self._micro_batch, self._prefetch = micro_batch, prefetch
        self._pin_memory, self._memory = pin_memory, ReusedMemory()
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
            # Kept nowhere here, so that the next one may have the memory of one that is done with.
            yield self._step(items, position, cursors)

    def _step(
        self, items: Iterator[Item], position: int, cursors: list[list[Cursor]]
    ) -> tuple[Batch, LoaderState]:
        """The next batch, whose moves go into `cursors`, and the state after it."""
        batch, moves = self._next(items)
        for dataset, lane, cursor in moves:
            cursors[dataset][lane] = cursor
        return batch, LoaderState(position, tuple(tuple(lanes) for lanes in cursors))

    def _next(self, items: Iterator[Item]) -> tuple[Batch, list[Move]]:
        if self._micro_batch == 1 and self.workers == 0 and not self._pin_memory:
            return _own_batch(next(items))
        return _batch(items, self._micro_batch, self._memory, self._pin_memory)

    def _items(self, worker: int, workers: int) -> Iterator[Item]:
        """What one of `workers` reads: they share this rank's positions in turns."""
        sequence = self._sequence()
        first = next_position(self.state.position, self._rank, self._world_size)
        for turn in count(worker, workers):
            yield sequence.read(first + turn * self._world_size)

    def _sequence(self) -> SampleSequence:
        return SampleSequence(
            self._datasets,
            self._read,
            seed=self._seed,
            shuffle_block=self._shuffle_block,
            state=self.state,
        )


def _check_lanes(dataset: OpenedShards, lanes: int, warn: bool) -> None:
    shards = shard_sizes(dataset.index)
    sizes = lane_sizes(shards, lanes)
    if not all(sizes):
        raise DataError(
            f"lane {sizes.index(0)} of {dataset.location} has no samples; rebuild the shards, or "
            "their index with fewer --lanes"
        )
    if warn and unevenness(shards, lanes) > UNEVEN and max(sizes) > min(sizes) + 1:
        logger.warning(
            "lanes of %s hold between %d and %d samples: those of small lanes are seen more often; "
            "rebuild the shards to even them out",
            dataset.location,
            min(sizes),
            max(sizes),
        )


def _own_batch(item: Item) -> tuple[Batch, list[Move]]:
    """One item that was read in this process, whose arrays nothing else uses: nothing is copied."""
    data = {name: torch.from_numpy(np.asarray(value)[None]) for name, value in item.values.items()}
    return Batch(data, (item.id,), item.skipped), [item.move] if item.move else []


def _batch(
    items: Iterator[Item], size: int, memory: ReusedMemory, pin_memory: bool = False
) -> tuple[Batch, list[Move]]:
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
                data[name] = (
                    torch.empty(shape, dtype=part.dtype, pin_memory=True)
                    if pin_memory
                    else torch.from_numpy(memory.empty(shape, part.numpy().dtype))
                )
            data[name][place] = part
        ids.append(item.id)
        skipped += item.skipped
        moves += [item.move] if item.move else []
    return Batch(data, tuple(ids), tuple(skipped)), moves
