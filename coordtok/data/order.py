"""Which sample comes next: the global order of the data, as pure functions.

The sequence depends on the seed, the shards' sizes and on which samples are unreadable, and on
nothing else: not on ranks, loader processes, micro-batches or restarts. Position k is the next
readable sample of lane k mod L; rank r of R takes the positions k with k mod R = r, and its j-th
one belongs to its worker j mod n. Because n R divides L, a lane is always read by one worker of one
rank, in the lane's own order.

Lane l owns the shards l, l + L, l + 2L ... In each of its epochs it permutes them, and reads each
in blocks of neighbouring samples permuted among themselves, so that reading stays sequential.

No torch, no input or output: a whole run's order can be simulated in a test.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike

from coordtok.errors import ConfigError

_WORD = 2**64
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 / golden ratio: the most even of all additive sequences


class Cursor(NamedTuple):
    """The sample a lane reads next, in permuted order; an epoch's end is (epoch + 1, 0, 0)."""

    epoch: int
    shard: int
    sample: int


START = Cursor(0, 0, 0)


class Slot(NamedTuple):
    """Where the sample at a cursor lies: `shard` and `sample` are places in the index."""

    lane: int
    epoch: int
    shard: int
    sample: int
    ahead: tuple[int, ...]
    """The samples of the same shard and block that the lane reads after this one."""
    after: Cursor


class LaneOrder:
    """The endless order in which one lane reads its samples."""

    def __init__(
        self, shard_sizes: Sequence[int], *, lanes: int, lane: int, seed: int, shuffle_block: int
    ) -> None:
        self._sizes = shard_sizes
        self._owned = range(lane, len(shard_sizes), lanes)
        self._lane, self._seed, self._block_size = lane, seed, shuffle_block
        self._epoch_shards: tuple[int, list[int]] = (-1, [])
        self._block: tuple[tuple[int, int, int], list[int]] = ((-1, -1, -1), [])
        self.samples = sum(shard_sizes[shard] for shard in self._owned)
        if self.samples == 0:
            raise ValueError(f"lane {lane} has no samples")

    def fits(self, cursor: Cursor) -> bool:
        """Whether `cursor` names a place of this lane."""
        if min(cursor) < 0 or cursor.shard >= len(self._owned):
            return False
        return cursor.sample <= self._sizes[self._shards(cursor.epoch)[cursor.shard]]

    def slot(self, cursor: Cursor) -> Slot:
        """The sample at `cursor`, past shards that are empty."""
        cursor = self._settle(cursor)
        if cursor.shard == len(self._owned):
            cursor = self._settle(Cursor(cursor.epoch + 1, 0, 0))
        epoch, place, sample = cursor
        shard = self._shards(epoch)[place]
        block = self._shuffled_block(epoch, shard, sample // self._block_size)
        within = sample % self._block_size
        after = self._settle(Cursor(epoch, place, sample + 1))
        if after.shard == len(self._owned):
            after = Cursor(epoch + 1, 0, 0)
        ahead = tuple(block[within + 1 :])
        return Slot(self._lane, epoch, shard, block[within], ahead, after)

    def _settle(self, cursor: Cursor) -> Cursor:
        """Move past shards that hold nothing more, to the lane's end at the furthest."""
        epoch, place, sample = cursor
        shards = self._shards(epoch)
        while place < len(shards) and sample >= self._sizes[shards[place]]:
            place, sample = place + 1, 0
        return Cursor(epoch, place, sample)

    def _shards(self, epoch: int) -> list[int]:
        if self._epoch_shards[0] != epoch:
            order = _permutation(len(self._owned), "shards", self._seed, self._lane, epoch)
            self._epoch_shards = (epoch, [self._owned[i] for i in order])
        return self._epoch_shards[1]

    def _shuffled_block(self, epoch: int, shard: int, block: int) -> list[int]:
        place = (epoch, shard, block)
        if self._block[0] != place:
            first = block * self._block_size
            size = min(self._block_size, self._sizes[shard] - first)
            order = _permutation(size, "block", self._seed, self._lane, *place)
            self._block = (place, [first + i for i in order])
        return self._block[1]


def shared_lanes(lanes_per_dataset: Sequence[int]) -> int:
    """L of a mixture: a divisor of a dataset's lanes is a valid number of lanes for it too."""
    return math.gcd(*lanes_per_dataset)


def usable_workers(lanes: int, world_size: int, wanted: int) -> int:
    """Loader processes per rank: `wanted`, lowered until ranks times workers divides the lanes.

    Raises:
        ConfigError: when the ranks do not divide the lanes; their number is never lowered.
    """
    if lanes % world_size:
        fitting = [n for n in range(1, lanes + 1) if lanes % n == 0]
        below = max(n for n in fitting if n < world_size)
        above = min((n for n in fitting if n > world_size), default=below)
        choices = f"{below}" if above == below else f"{below} or {above}"
        raise ConfigError(
            f"{world_size} ranks cannot share the data's {lanes} lanes, which they must divide; "
            f"start {choices} ranks, or rebuild the shards with --lanes a multiple of {world_size}"
        )
    per_rank = lanes // world_size
    return max((n for n in range(1, min(wanted, per_rank) + 1) if per_rank % n == 0), default=0)


def next_position(position: int, rank: int, world_size: int) -> int:
    """The first position of `rank` that is not before `position`."""
    return position + (rank - position) % world_size


def choose_dataset(position: int, weights: Sequence[float], seed: int) -> int:
    """Which dataset of a mixture serves a position.

    The points frac(phase + position x golden ratio) are so evenly spread that every dataset's share
    of any stretch of positions is within a few samples of its weight.
    """
    if len(weights) == 1:
        return 0
    cumulative = list(accumulate(weights))
    point = (_mixture_phase(seed) + position * _GOLDEN) % _WORD / _WORD
    return min(bisect_right(cumulative, point * cumulative[-1]), len(weights) - 1)


def sample_rng(seed: int, lane: int, epoch: int, key: str, purpose: str) -> np.random.Generator:
    """The generator of everything random about a sample, in any process that draws it.

    Counter-based, its key a stable hash; `purpose` ("window", "points" ...) keeps draws apart.
    """
    digest = _stable_hash("sample", seed, lane, epoch, key, purpose)
    return np.random.Generator(np.random.Philox(_PhiloxKey(digest)))  # type: ignore[arg-type]


def draw_start(rng: np.random.Generator, stored: int, length: int) -> int:
    """Where a window of `length` frames begins in a sample of `stored` ones; 0 if it has fewer."""
    return int(rng.integers(max(stored - length, 0) + 1))


def _permutation(size: int, *parts: int | str) -> list[int]:
    if size == 1:
        return [0]
    # From raw words rather than Generator.permutation, whose stream numpy may change.
    words = np.random.Philox(key=_stable_hash(*parts)).random_raw(size)
    return np.argsort(words, kind="stable").tolist()


class _PhiloxKey(ISeedSequence):
    """A key of 128 bits. `Philox(key=...)` means the same, but gathers entropy of the system first,
    which it then does not use and which takes most of a generator's time. (Philox takes any
    `ISeedSequence`; numpy's annotations know `SeedSequence` alone.)"""

    def __init__(self, bits: int) -> None:
        self._words = np.array([bits % _WORD, bits // _WORD], np.uint64)

    def generate_state(self, n_words: int, dtype: DTypeLike = np.uint32) -> np.ndarray:
        return self._words


@lru_cache(maxsize=16)
def _mixture_phase(seed: int) -> int:
    return _stable_hash("mixture", seed) % _WORD


def _stable_hash(*parts: int | str) -> int:
    """128 bits that are the same in every process and on every machine, unlike `hash`."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        text = str(part).encode("utf-8", "surrogatepass")
        digest.update(len(text).to_bytes(8, "little") + text)
    return int.from_bytes(digest.digest(), "little")
