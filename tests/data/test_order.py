import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from coordtok.data.order import (
    START,
    Cursor,
    LaneOrder,
    choose_dataset,
    draw_start,
    next_position,
    sample_rng,
    shared_lanes,
    usable_workers,
)
from coordtok.errors import ConfigError

SIZES = (7, 0, 5, 3, 6, 4, 2, 0, 1, 5)


def lane_order(lane: int, *, sizes=SIZES, lanes=2, seed=0, shuffle_block=4) -> LaneOrder:
    return LaneOrder(sizes, lanes=lanes, lane=lane, seed=seed, shuffle_block=shuffle_block)


def walk(order: LaneOrder, steps: int, cursor: Cursor = START) -> list:
    slots = []
    for _ in range(steps):
        slots.append(order.slot(cursor))
        cursor = slots[-1].after
    return slots


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize("shuffle_block", [1, 3, 100])
def test_each_epoch_of_a_lane_holds_each_of_its_samples_once(lanes, shuffle_block):
    for lane in range(lanes):
        order = lane_order(lane, lanes=lanes, shuffle_block=shuffle_block)
        owned = {(s, i) for s in range(lane, len(SIZES), lanes) for i in range(SIZES[s])}
        slots = walk(order, 3 * order.samples)
        for epoch in range(3):
            seen = [(slot.shard, slot.sample) for slot in slots if slot.epoch == epoch]
            assert len(seen) == len(owned)
            assert set(seen) == owned


def test_the_end_of_an_epoch_is_the_start_of_the_next():
    for lane in (0, 1):
        order = lane_order(lane)
        slots = walk(order, 2 * order.samples)
        assert slots[order.samples - 1].after == Cursor(1, 0, 0)
        assert slots[-1].after == Cursor(2, 0, 0)
        assert all(slot.after.epoch == 0 for slot in slots[: order.samples - 1])


def test_a_walk_resumes_at_any_of_its_cursors():
    order = lane_order(0)
    slots = walk(order, 60)
    for step in range(1, 59):
        assert walk(lane_order(0), 60 - step, slots[step - 1].after) == slots[step:]


def test_a_shard_is_read_in_blocks_of_neighbours():
    order = lane_order(0, sizes=(10,), lanes=1, shuffle_block=4)
    samples = [slot.sample for slot in walk(order, 10)]
    assert [sorted(samples[:4]), sorted(samples[4:8]), sorted(samples[8:])] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


def test_ahead_is_what_remains_of_the_block():
    slots = walk(lane_order(0, sizes=(10,), lanes=1, shuffle_block=4), 10)
    for place, slot in enumerate(slots):
        end = min(place // 4 * 4 + 4, 10)
        assert slot.ahead == tuple(later.sample for later in slots[place + 1 : end])


def test_order_differs_between_epochs_lanes_and_seeds():
    def shards_and_samples(seed, lane, epoch):
        order = LaneOrder((8,) * 16, lanes=2, lane=lane, seed=seed, shuffle_block=8)
        slots = walk(order, order.samples, Cursor(epoch, 0, 0))
        return tuple((slot.shard // 2, slot.sample) for slot in slots)

    orders = {shards_and_samples(s, i, e) for s in (0, 1) for i in (0, 1) for e in (0, 1)}
    assert len(orders) == 8


def test_cursors_outside_the_lane_do_not_fit():
    order = lane_order(0)
    assert order.fits(START)
    assert order.fits(Cursor(7, 4, 0))
    for cursor in (Cursor(0, 5, 0), Cursor(0, 0, 8), Cursor(-1, 0, 0), Cursor(0, 0, -1)):
        assert not order.fits(cursor)


def test_a_lane_without_samples_is_refused():
    with pytest.raises(ValueError, match="lane 1 has no samples"):
        lane_order(1, sizes=(3, 0), lanes=2)


def test_shared_lanes():
    assert shared_lanes((96, 64)) == 32
    assert shared_lanes((6,)) == 6


@pytest.mark.parametrize(
    ("lanes", "world_size", "wanted", "expected"),
    [(96, 8, 4, 4), (96, 8, 5, 4), (96, 8, 0, 0), (8, 8, 4, 1), (6, 2, 2, 1), (6, 1, 9, 6)],
)
def test_workers_are_lowered_to_what_divides(lanes, world_size, wanted, expected):
    assert usable_workers(lanes, world_size, wanted) == expected


@pytest.mark.parametrize(
    ("lanes", "world_size", "fix"), [(96, 5, "start 4 or 6 ranks"), (8, 9, "start 8 ranks")]
)
def test_ranks_are_never_lowered(lanes, world_size, fix):
    with pytest.raises(ConfigError, match=f"{world_size} ranks .* {lanes} lanes.*{fix}") as error:
        usable_workers(lanes, world_size, 2)
    assert "\n" not in str(error.value)


def test_next_position():
    assert [next_position(12, rank, 4) for rank in range(4)] == [12, 13, 14, 15]
    assert [next_position(13, rank, 4) for rank in range(4)] == [16, 13, 14, 15]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.7, 0.2, 0.1), (3.0, 1.0), (1.0, 1e-3)])
@pytest.mark.parametrize("start", [0, 10**12])
def test_every_stretch_of_positions_follows_the_weights(weights, start):
    for length in (50, 500, 5000):
        drawn = Counter(choose_dataset(k, weights, seed=3) for k in range(start, start + length))
        for dataset, weight in enumerate(weights):
            assert abs(drawn[dataset] - length * weight / sum(weights)) < 5


def test_a_mixture_depends_on_the_seed():
    def chosen(seed):
        return [choose_dataset(k, (1.0, 1.0), seed) for k in range(100)]

    assert chosen(0) == chosen(0) != chosen(1)


def test_sample_rng_keeps_everything_apart():
    base = (0, 1, 2, "key", "window")
    others = [
        (1, 1, 2, "key", "window"),
        (0, 2, 2, "key", "window"),
        (0, 1, 3, "key", "window"),
        (0, 1, 2, "kex", "window"),
        (0, 1, 2, "key", "points"),
        (0, 12, 0, "key", "window"),
        (0, 1, 2, "ke", "ywindow"),
        (0, 1, 2, "k\udce9", "window"),
    ]
    draws = {tuple(sample_rng(*parts).integers(2**62, size=2)) for parts in [base, *others]}
    assert len(draws) == 1 + len(others)


def test_draws_are_those_of_every_version():
    """A run that is resumed goes on with the clips and points it would have had."""
    rng = sample_rng(1, 2, 3, "key", "window")
    assert rng.integers(2**62, size=2).tolist() == [3168491988976138864, 2499484036049729046]
    assert sample_rng(1, 2, 3, "key", "points").random() == 0.315068511899092


def test_draws_are_the_same_in_every_process():
    program = (
        "from coordtok.data.order import *; "
        "print(LaneOrder((5,5,5), lanes=1, lane=0, seed=1, shuffle_block=4).slot(Cursor(2,1,3)), "
        "sample_rng(1, 2, 3, 'ключ', 'window').integers(2**60), choose_dataset(9, (1, 2), 5))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert outputs == {
        "Slot(lane=0, epoch=2, shard=2, sample=0, ahead=(), after=Cursor(epoch=2, shard=1, "
        "sample=4)) 745502216557976989 1\n"
    }


def test_order_does_not_import_torch():
    program = "import sys, coordtok.data.order; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_permutations_are_uniform():
    firsts = Counter(
        LaneOrder((6,), lanes=1, lane=0, seed=seed, shuffle_block=6).slot(START).sample
        for seed in range(600)
    )
    counts = np.array([firsts[i] for i in range(6)])
    assert ((counts - 100) ** 2 / 100).sum() < 20.5  # chi-squared, 5 degrees: 0.1 %


def test_a_window_is_drawn_anywhere_in_its_sample():
    starts = {draw_start(np.random.default_rng(seed), 11, 4) for seed in range(60)}
    assert starts == set(range(8))
    assert draw_start(np.random.default_rng(0), 3, 4) == 0
