"""Which segment lies in which shard: a pure function of the segments and the options.

Segments are dealt to lanes in a seeded random order, so that lanes hold equally many within one and
every lane is a fair sample of the dataset. A lane's samples fill equally many shards in every lane;
shard s belongs to lane s mod lanes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from coordtok.data.index import default_lanes
from coordtok.data.partition import deal
from data_prep.options import MEGABYTE, BuildOptions


@dataclass(frozen=True)
class Sample:
    """A segment on its way into a shard: its key, its size and the text of its KEY.json."""

    key: str
    bytes: int
    info: str


@dataclass(frozen=True)
class PlannedShard:
    name: str
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Plan:
    lanes: int
    shards: tuple[PlannedShard, ...]


def plan_shards(samples: Sequence[Sample], options: BuildOptions) -> Plan:
    """Deal samples to lanes and cut lanes into shards. Samples may come in any order."""
    lanes = default_lanes(len(samples), options.lanes)
    per_lane = deal([(sample.key, sample) for sample in samples], lanes, options.seed)
    shards_per_lane = _shards_per_lane(samples, lanes, options)
    shards = []
    for number in range(lanes * shards_per_lane):
        lane, rank = number % lanes, number // lanes
        members = _share(per_lane[lane], rank, shards_per_lane)
        shards.append(PlannedShard(f"{options.prefix}-{number:06d}.tar", tuple(members)))
    return Plan(lanes, tuple(shards))


def _shards_per_lane(samples: Sequence[Sample], lanes: int, options: BuildOptions) -> int:
    smallest = len(samples) // lanes
    if options.samples_per_shard is not None:
        longest = -(-len(samples) // lanes)
        wanted = -(-longest // options.samples_per_shard)
    else:
        size = sum(sample.bytes for sample in samples)
        wanted = round(size / lanes / (options.shard_size * MEGABYTE))
    return max(1, min(wanted, smallest))


def _share(samples: Sequence[Sample], rank: int, shares: int) -> Sequence[Sample]:
    """One of `shares` consecutive parts of equal length within one."""
    return samples[len(samples) * rank // shares : len(samples) * (rank + 1) // shares]
