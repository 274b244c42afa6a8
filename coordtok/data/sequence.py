"""The global sequence of samples, read: any position of it, for whichever lanes a caller visits.

The order itself is order.py's. Here a lane's cursor moves past what cannot be read, so that
position k is the next *readable* sample of lane k mod L, and what was skipped is named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from coordtok.data.index import SampleEntry, ShardIndex
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.order import Cursor, LaneOrder, Slot, choose_dataset, sample_rng
from coordtok.data.shards import OpenedShards
from coordtok.data.state import LoaderState
from coordtok.errors import DataError, one_line


class SampleId(NamedTuple):
    """What everything random about a sample is drawn from, with the seed."""

    lane: int
    epoch: int
    key: str


class SkippedSample(NamedTuple):
    """A sample that its lane passed over."""

    location: str
    shard: str
    key: str
    reason: str

    def __str__(self) -> str:
        return one_line(f"{self.key} in {self.shard} of {self.location}: {self.reason}")


class SampleReader(Protocol):
    """Turns a stored sample into arrays: video windows, latents ..."""

    def check(self, index: ShardIndex, location: str) -> None:
        """Raise DataError if samples of this index cannot be what is asked for."""

    def __call__(self, sample: StoredSample, rng: np.random.Generator) -> Mapping[str, Any]:
        """The sample's arrays and numbers; `rng` draws its window. Raises UnreadableSample."""

    def blank(self) -> Mapping[str, Any]:
        """Values in the form of every sample's, standing in for one that is missing."""


class Move(NamedTuple):
    """Where a lane goes on in a dataset."""

    dataset: int
    lane: int
    cursor: Cursor


@dataclass(frozen=True)
class Item:
    """One sample, read."""

    values: Mapping[str, Any]
    id: SampleId
    skipped: tuple[SkippedSample, ...] = ()
    move: Move | None = None
    """How it moves its lane, where it is part of the sequence."""


class SampleSequence:
    """Reads positions; those of one lane must be read in increasing order."""

    def __init__(
        self,
        sources: Sequence[OpenedShards],
        read: SampleReader,
        *,
        seed: int,
        shuffle_block: int,
        state: LoaderState,
    ) -> None:
        self._sources, self._read, self._seed = sources, read, seed
        self._shuffle_block = shuffle_block
        self._weights = [source.weight for source in sources]
        self._sizes = [shard_sizes(source.index) for source in sources]
        self._cursors = [list(lanes) for lanes in state.cursors]
        self._orders: dict[tuple[int, int], LaneOrder] = {}
        self.lanes = len(state.cursors[0])

    def fits(self) -> bool:
        """Whether every cursor names a place of its lane."""
        return all(
            self._order(dataset, lane).fits(cursor)
            for dataset, lanes in enumerate(self._cursors)
            for lane, cursor in enumerate(lanes)
        )

    def read(self, position: int) -> Item:
        """The sample at a position.

        Raises:
            DataError: nothing in a whole epoch of its lane is readable, or reading failed.
        """
        lane = position % self.lanes
        dataset = choose_dataset(position, self._weights, self._seed)
        order = self._order(dataset, lane)
        slot = order.slot(self._cursors[dataset][lane])
        skipped: list[SkippedSample] = []
        epoch_began = 0  # how many had been skipped then
        while isinstance(values := self._values(dataset, slot), UnreadableSample):
            skipped.append(self._skipped(dataset, slot, values))
            if len(skipped) - epoch_began == order.samples:
                raise DataError(
                    f"none of the {order.samples} samples in lane {lane} of "
                    f"{self._sources[dataset].location} can be read, the last being {skipped[-1]}; "
                    "see python -m data_prep.verify_shards --help"
                )
            if slot.after.epoch > slot.epoch:
                epoch_began = len(skipped)
            slot = order.slot(slot.after)
        self._cursors[dataset][lane] = slot.after
        sample_id = SampleId(lane, slot.epoch, self._entry(dataset, slot).key)
        return Item(values, sample_id, tuple(skipped), Move(dataset, lane, slot.after))

    def _order(self, dataset: int, lane: int) -> LaneOrder:
        if (dataset, lane) not in self._orders:
            self._orders[dataset, lane] = LaneOrder(
                self._sizes[dataset],
                lanes=self.lanes,
                lane=lane,
                seed=self._seed,
                shuffle_block=self._shuffle_block,
            )
        return self._orders[dataset, lane]

    def _values(self, dataset: int, slot: Slot) -> Mapping[str, Any] | UnreadableSample:
        reader = self._sources[dataset].reader
        sample = reader.sample(slot.shard, slot.sample, lane=slot.lane, ahead=slot.ahead)
        rng = sample_rng(self._seed, slot.lane, slot.epoch, sample.entry.key, "window")
        try:
            return self._read(sample, rng)
        except UnreadableSample as error:
            return error

    def _entry(self, dataset: int, slot: Slot) -> SampleEntry:
        return self._sources[dataset].index.shards[slot.shard].samples[slot.sample]

    def _skipped(self, dataset: int, slot: Slot, error: UnreadableSample) -> SkippedSample:
        source = self._sources[dataset]
        shard = source.index.shards[slot.shard].name
        return SkippedSample(
            source.location, shard, self._entry(dataset, slot).key, one_line(error)
        )


def shard_sizes(index: ShardIndex) -> list[int]:
    """Samples in each shard."""
    return [len(shard.samples) for shard in index.shards]
