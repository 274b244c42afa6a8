"""Where a run stands in its data: the position of the sequence and every lane's cursor.

The state travels with each batch, so that a saved one never runs ahead of training. A rank only
moves the cursors of its own lanes; a checkpoint merges those of all ranks into one state, which
any other number of ranks and workers goes on from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coordtok.data.order import START, Cursor, shared_lanes
from coordtok.data.shards import OpenedShards
from coordtok.errors import CheckpointError


@dataclass(frozen=True)
class LoaderState:
    """What comes next: the first position not yet used, and cursors [dataset][lane]."""

    position: int
    cursors: tuple[tuple[Cursor, ...], ...]

    @classmethod
    def start(cls, sources: Sequence[OpenedShards]) -> "LoaderState":
        """The beginning of the sequence over these datasets."""
        lanes = shared_lanes([source.index.lanes for source in sources])
        return cls(0, ((START,) * lanes,) * len(sources))

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


def _own_lanes(by_rank: Sequence[Sequence[Cursor]]) -> tuple[Cursor, ...]:
    return tuple(by_rank[lane % len(by_rank)][lane] for lane in range(len(by_rank[0])))


def _next_epoch(cursor: Cursor) -> int:
    """The first epoch of which the lane has read nothing."""
    return cursor.epoch + (cursor != Cursor(cursor.epoch, 0, 0))


def _count(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
