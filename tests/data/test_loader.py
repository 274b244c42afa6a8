"""The data order contract, through the loaders that training and evaluation use."""

import itertools

import numpy as np
import pytest
import torch

from coordtok.config.errors import CheckpointError, ConfigError, DataError
from coordtok.data.loader import (
    LoaderState,
    TrainLoader,
    VideoWindows,
    open_shards,
)

READ = VideoWindows(frames=4, height=2, width=4)


def train_loader(*folders, rank=0, world_size=1, micro_batch=1, workers=0, state=None, **options):
    sources = [open_shards(str(f), 1.0) for f in folders]
    settings = {"seed": 0, "prefetch": 2, "shuffle_block": 3, "read": READ} | options
    return TrainLoader(
        sources,
        rank=rank,
        world_size=world_size,
        micro_batch=micro_batch,
        workers=workers,
        state=state,
        **settings,
    )


def take(loader, steps):
    return list(itertools.islice(iter(loader), steps))


def test_batches(write_shards, tmp_path):
    folder = write_shards(tmp_path, (5, 4, 3, 6), 4)
    (batch, state), *_ = take(train_loader(folder, micro_batch=3), 2)
    assert batch.data["video"].shape == (3, 4, 2, 4, 3)
    assert batch.data["video"].dtype == torch.uint8
    assert batch.data["num_frames"].tolist() == [4, 4, 4]
    assert batch.data["label"].tolist() == [0, 1, 2]
    assert [sample.lane for sample in batch.ids] == [0, 1, 2]
    assert state.position == 3


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_do_not_change_the_sequence(write_shards, tmp_path, workers):
    folder = write_shards(tmp_path, (5, 4, 3, 6), 4)
    expected = take(train_loader(folder, micro_batch=3), 12)
    found = take(train_loader(folder, micro_batch=3, workers=workers), 12)
    for (batch, state), (other, other_state) in zip(expected, found, strict=True):
        assert batch.ids == other.ids
        assert state == other_state
        for name in batch.data:
            assert torch.equal(batch.data[name], other.data[name])
