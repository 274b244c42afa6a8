"""The global sequence of samples, read: any position of it, for whichever lanes a caller visits,
and where a run stands in it.

The order itself is order.py's. Here a lane's cursor moves past what cannot be read, so that
position k is the next *readable* sample of lane k mod L, and what was skipped is named. The state
travels with each batch, so that a saved one never runs ahead of training. A rank only moves the
cursors of its own lanes; a checkpoint merges those of all ranks into one state, which any other
number of ranks and workers goes on from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordtok.data.index import SampleEntry, ShardIndex
from coordtok.data.member import UnreadableSample
from coordtok.data.order import (
    START,
    Cursor,
    LaneOrder,
    Slot,
    choose_dataset,
    draw_start,
    sample_rng,
    shared_lanes,
)
from coordtok.data.sample import Item, Move, SampleId, SampleReader, SkippedSample
from coordtok.data.shards import OpenedShards
from coordtok.errors import CheckpointError, DataError, one_line


@dataclass(frozen=True)
class LoaderState:
    """What comes next: the first position not yet used, and cursors [dataset][lane]."""

    position: int
    cursors: tuple[tuple[Cursor, ...], ...]

    @classmethod
    def start(cls, datasets: Sequence[OpenedShards]) -> "LoaderState":
        """The beginning of the sequence over these datasets."""
        lanes = shared_lanes([dataset.index.lanes for dataset in datasets])
        return cls(0, ((START,) * lanes,) * len(datasets))

    @classmethod
    def merge(cls, states_by_rank: Sequence["LoaderState"]) -> "LoaderState":
        """One state of all ranks': lane l as rank l mod R left it.

        Raises:
            CheckpointError: the ranks stand at different positions.
        """
        positions = sorted({state.position for state in states_by_rank})
        if len(positions) > 1:
            raise CheckpointError(
                f"the ranks stand at different positions of the data ({positions}); a checkpoint "
                "is taken by all of them after the same step"
            )
        by_dataset = zip(*(state.cursors for state in states_by_rank))
        return cls(positions[0], tuple(_own_lanes(by_rank) for by_rank in by_dataset))

    @property
    def lanes(self) -> int:
        return len(self.cursors[0])

    def at_next_epoch(self, start: "LoaderState") -> "LoaderState":
        """The same position over data that changed, whose beginning is `start`: each of its lanes
        begins an epoch that no lane had begun before."""
        epochs = [max(map(_next_epoch, lanes)) for lanes in self.cursors]
        epochs += [0] * (len(start.cursors) - len(epochs))
        cursors = [(Cursor(epoch, 0, 0),) * start.lanes for epoch in epochs[: len(start.cursors)]]
        return LoaderState(self.position, tuple(cursors))

    def check(self, start: "LoaderState") -> None:
        """Compare with the data of this run, whose beginning is `start`.

        Raises:
            CheckpointError: the state is of another number of datasets or lanes.
        """
        if (len(self.cursors), self.lanes) != (len(start.cursors), start.lanes):
            raise CheckpointError(
                f"the saved position is of {len(self.cursors)} datasets in {self.lanes} lanes, "
                f"this run has {len(start.cursors)} in {start.lanes}; go on with the data.shards "
                "it began with, or take its weights alone with train.init_from"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            "position": self.position,
            "cursors": [[list(cursor) for cursor in lanes] for lanes in self.cursors],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], where: str = "the loader state") -> "LoaderState":
        """Read what `to_json` wrote. `where` names its file in errors.

        Raises:
            CheckpointError: it is not such a state.
        """
        try:
            cursors = tuple(
                tuple(Cursor(*map(_count, cursor)) for cursor in lanes)
                for lanes in stored["cursors"]
            )
            state = cls(_count(stored["position"]), cursors)
            if len({len(lanes) for lanes in cursors} - {0}) != 1:
                raise ValueError("its datasets have no lanes, or not the same")
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{where} is damaged ({error!r}); resume from another checkpoint"
            ) from None
        return state


class SampleSequence:
    """Reads positions; those of one lane must be read in increasing order."""

    def __init__(
        self,
        datasets: Sequence[OpenedShards],
        read: SampleReader,
        *,
        seed: int,
        shuffle_block: int,
        state: LoaderState,
    ) -> None:
        self._datasets, self._read, self._seed = datasets, read, seed
        self._shuffle_block = shuffle_block
        self._weights = [dataset.weight for dataset in datasets]
        self._sizes = [shard_sizes(dataset.index) for dataset in datasets]
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
                    f"{skipped[-1].location} can be read, the last being {skipped[-1]}; see "
                    "python -m data_prep.verify_shards --help"
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
        reader = self._datasets[dataset].reader
        sample = reader.sample(slot.shard, slot.sample, lane=slot.lane, ahead=slot.ahead)
        rng = sample_rng(self._seed, slot.lane, slot.epoch, sample.entry.key, "window")
        try:
            return self._read(sample, draw_start(rng, sample.entry.frames, self._read.frames))
        except UnreadableSample as error:
            return error

    def _entry(self, dataset: int, slot: Slot) -> SampleEntry:
        return self._datasets[dataset].index.shards[slot.shard].samples[slot.sample]

    def _skipped(self, dataset: int, slot: Slot, error: UnreadableSample) -> SkippedSample:
        key, location = self._entry(dataset, slot).key, self._datasets[dataset].location
        shard = self._datasets[dataset].index.shards[slot.shard].name
        return SkippedSample(location, shard, key, one_line(error))


def shard_sizes(index: ShardIndex) -> list[int]:
    """Samples in each shard."""
    return [len(shard.samples) for shard in index.shards]


def _own_lanes(by_rank: Sequence[Sequence[Cursor]]) -> tuple[Cursor, ...]:
    return tuple(by_rank[lane % len(by_rank)][lane] for lane in range(len(by_rank[0])))


def _next_epoch(cursor: Cursor) -> int:
    """The first epoch of which the lane has read nothing."""
    return cursor.epoch + (cursor != Cursor(cursor.epoch, 0, 0))


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
