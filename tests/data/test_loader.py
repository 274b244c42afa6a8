"""What the loaders hand over and refuse; the order is tested in test_loader_order.py."""

import itertools
import logging

import pytest
import torch

from coordtok.data.loader import TrainLoader
from coordtok.data.order import Cursor, sample_rng
from coordtok.data.sequence import LoaderState
from coordtok.data.shards import open_shards
from coordtok.data.video_reader import VideoWindows
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
    with pytest.raises(DataError, match=r"frames of 2 x 4 .*the model takes 8 x 4"):
        train_loader(folder, read=other)


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
