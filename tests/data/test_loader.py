"""What the loaders hand over and refuse; the order is tested in test_loader_order.py."""

import itertools
import logging
from collections import Counter
from pathlib import Path

import pytest
import torch

from coordtok.data.loader import EvalLoader, LoaderState, TrainLoader, VideoWindows, open_shards
from coordtok.data.order import Cursor, sample_rng
from coordtok.errors import CheckpointError, ConfigError, DataError

READ = VideoWindows(frames=4, height=2, width=4)


def train_loader(*folders, read=READ, rank=0, ranks=1, micro_batch=1, **options) -> TrainLoader:
    settings = {"workers": 0, "prefetch": 2, "shuffle_block": 3, "seed": 0} | options
    return TrainLoader(
        [open_shards(str(folder)) for folder in folders],
        read,
        rank=rank,
        world_size=ranks,
        micro_batch=micro_batch,
        **settings,
    )


def eval_loader(folder, rank=0, ranks=1, batch=1, read=READ, **options) -> EvalLoader:
    opened = open_shards(str(folder))
    return EvalLoader(
        opened, read, **({"seed": 0} | options), rank=rank, world_size=ranks, batch=batch
    )


def test_a_batch(write_shards, tmp_path):
    folder = write_shards(tmp_path, (5, 4, 3, 6), 4)
    (batch, state), (later, _) = itertools.islice(train_loader(folder, micro_batch=3), 2)
    assert batch.data["video"].shape == (3, 4, 2, 4, 3)
    assert batch.data["video"].dtype == torch.uint8
    assert batch.data["num_frames"].dtype == batch.data["label"].dtype == torch.int64
    assert batch.data["num_frames"].tolist() == [4, 4, 4]
    assert batch.data["label"].tolist() == [0, 1, 2]
    assert [(sample.lane, sample.epoch) for sample in batch.ids] == [(0, 0), (1, 0), (2, 0)]
    assert [sample.lane for sample in later.ids] == [3, 0, 1]
    assert batch.skipped == ()
    assert state.position == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_stays_as_it_is(write_shards, tmp_path, workers):
    batches = iter(train_loader(write_shards(tmp_path, (5,), 1), workers=workers))
    first = next(batches)[0].data["video"]
    kept = first.clone()
    for _ in range(8):
        next(batches)
    assert torch.equal(first, kept)


def test_points_can_be_drawn_from_what_identifies_a_sample(write_shards, tmp_path):
    folder = write_shards(tmp_path, (5, 4), 2)
    (batch, _), *_ = itertools.islice(train_loader(folder, micro_batch=2), 1)
    draws = [sample_rng(0, *sample, "points").integers(10**9) for sample in batch.ids]
    assert len(set(draws)) == 2


def test_iterating_again_begins_at_the_same_place(write_shards, tmp_path):
    loader = train_loader(write_shards(tmp_path, (5, 4), 2))
    first, again = ([batch.ids for batch, _ in itertools.islice(loader, 5)] for _ in range(2))
    assert first == again


def test_ranks_that_do_not_divide_the_lanes(write_shards, tmp_path):
    folder = write_shards(tmp_path, (1,) * 6, 6)
    with pytest.raises(ConfigError, match=r"4 ranks cannot share the data's 6 lanes.*3 or 6 ranks"):
        train_loader(folder, ranks=4)


def test_workers_are_lowered_to_what_divides(write_shards, tmp_path):
    folder = write_shards(tmp_path, (1,) * 6, 6)
    assert train_loader(folder, ranks=2, workers=2).workers == 1
    assert train_loader(folder, ranks=1, workers=4).workers == 3


def test_a_lane_without_samples(write_shards, tmp_path):
    folder = write_shards(tmp_path, (2, 0, 3, 1, 0, 2), 3)
    with pytest.raises(DataError, match=rf"lane 1 of {tmp_path} has no samples; rebuild"):
        train_loader(folder)


def test_a_lane_without_readable_samples(write_shards, tmp_path):
    folder = write_shards(tmp_path, (2, 2), 2, damaged=["s001-000", "s001-001"])
    with pytest.raises(DataError, match=rf"none of the 2 samples in lane 1 of {tmp_path}") as error:
        list(itertools.islice(train_loader(folder), 3))
    assert "\n" not in str(error.value)


def test_shards_of_another_frame_size(write_shards, tmp_path):
    folder = write_shards(tmp_path, (2,), 1)
    other = VideoWindows(4, 8, 4)
    for make in (train_loader, eval_loader):
        with pytest.raises(DataError, match=r"frames of 2 x 4 .*the model takes 8 x 4"):
            make(folder, read=other)


def test_uneven_lanes_are_warned_about_once(write_shards, tmp_path, caplog):
    uneven = write_shards(tmp_path / "uneven", (10, 12), 2)
    train_loader(write_shards(tmp_path / "even", (10, 11), 2))
    train_loader(uneven, rank=1, ranks=2)
    assert not caplog.records
    train_loader(uneven)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"lanes of {uneven} hold between 10 and 12 samples" in record.getMessage()


@pytest.mark.parametrize("cursor", [Cursor(0, 2, 0), Cursor(3, 0, 9)])
def test_a_position_outside_the_shards_is_refused(write_shards, tmp_path, cursor):
    folder = write_shards(tmp_path, (2, 2, 2, 2), 2)
    state = LoaderState(8, ((Cursor(0, 0, 0), cursor),))
    with pytest.raises(CheckpointError, match="the saved position lies outside the shards"):
        train_loader(folder, state=state)


def test_a_state_of_other_lanes_is_refused(write_shards, tmp_path):
    state = LoaderState(8, ((Cursor(0, 0, 0),) * 3,))
    with pytest.raises(CheckpointError, match="1 datasets in 3 lanes, this run has 1 in 2"):
        train_loader(write_shards(tmp_path, (2, 2), 2), state=state)


SIZES = (5, 0, 4, 3, 6)
KEYS = [f"s{shard:03d}-{i:03d}" for shard, size in enumerate(SIZES) for i in range(size)]
DAMAGED = ["s002-001", "s004-005"]


@pytest.fixture
def held_out(write_shards, tmp_path) -> Path:
    return write_shards(tmp_path, SIZES, 1, damaged=DAMAGED[:1], damaged_headers=DAMAGED[1:])


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 25])
@pytest.mark.parametrize("batch", [1, 4])
def test_evaluation_reads_every_sample_once(held_out, ranks, batch):
    windows, skipped, lengths = {}, Counter(), set()
    seen = Counter()
    for rank in range(ranks):
        loader = eval_loader(held_out, rank, ranks, batch)
        batches = list(loader)
        lengths |= {len(batches), len(loader)}
        for one in batches:
            assert one.data["video"].shape == (batch, 4, 2, 4, 3)
            assert one.data["valid"].dtype == torch.bool
            assert one.data["num_frames"].tolist() == [4] * batch
            skipped.update(sample.key for sample in one.skipped)
            for sample, video, valid in zip(one.ids, one.data["video"], one.data["valid"]):
                if valid:
                    seen[sample.key] += 1
                    windows[sample.key] = video.tolist()
    assert len(lengths) == 1
    assert seen == Counter(set(KEYS) - set(DAMAGED))
    assert skipped == Counter(DAMAGED)
    (alone,) = eval_loader(held_out, batch=len(KEYS))
    assert [sample.key for sample in alone.ids] == KEYS
    assert windows == {
        sample.key: video.tolist()
        for sample, video, valid in zip(alone.ids, alone.data["video"], alone.data["valid"])
        if valid
    }


def test_rank_r_evaluates_samples_r_and_every_world_size_further(held_out):
    batches = list(eval_loader(held_out, rank=1, ranks=4, batch=2))
    assert [sample.key for batch in batches for sample in batch.ids][:5] == KEYS[1::4]
    assert [valid for batch in batches for valid in batch.data["valid"].tolist()] == [
        key not in DAMAGED for key in KEYS[1::4]
    ] + [False] * (len(batches) * 2 - len(KEYS[1::4]))


def test_evaluation_draws_the_same_windows_each_time(held_out):
    loader = eval_loader(held_out, batch=3)
    first, again = (torch.cat([batch.data["video"] for batch in loader]) for _ in range(2))
    assert torch.equal(first, again)
    other = torch.cat([batch.data["video"] for batch in eval_loader(held_out, batch=3, seed=1)])
    assert not torch.equal(first, other)
