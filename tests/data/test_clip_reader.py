"""Who reads which clips, and what is in their batches."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from coordtok.data.clip_reader import ClipBatch, ClipReader
from coordtok.data.clips import Clip, one_per_sample
from coordtok.data.index import ShardIndex
from coordtok.data.sample import SampleId
from coordtok.data.shards import open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import ConfigError, DataError

FRAMES = 8
READ = VideoWindows(FRAMES, 16, 24)

SMALL = VideoWindows(frames=4, height=2, width=4)
SIZES = (5, 0, 4, 3, 6)
KEYS = [f"s{shard:03d}-{i:03d}" for shard, size in enumerate(SIZES) for i in range(size)]
DAMAGED = ["s002-001", "s004-005"]


@pytest.fixture(scope="module")
def index(clip_shards: Path) -> ShardIndex:
    return open_shards(str(clip_shards)).index


@pytest.fixture
def held_out(write_shards: Callable[..., Path], tmp_path: Path) -> Path:
    return write_shards(tmp_path, SIZES, 1, damaged=DAMAGED[:1], damaged_headers=DAMAGED[1:])


def read(folder: Path, clips: list[Clip], **options: int) -> list[ClipBatch]:
    return list(ClipReader(open_shards(str(folder)), clips, READ, **{"batch": 2, **options}))


def every_sample(folder: Path, *, seed: int = 0, **options: int) -> ClipReader:
    """A window of each, as validation and evaluation read them."""
    opened = open_shards(str(folder))
    clips = one_per_sample(opened.index, SMALL.frames, seed)
    return ClipReader(opened, clips, SMALL, **{"batch": 3, **options})


def videos(batches: list[ClipBatch]) -> dict[int, np.ndarray]:
    return {
        number: batch.data["video"][place].numpy()
        for batch in batches
        for place, number in batch.numbers.items()
    }


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 25])
@pytest.mark.parametrize("batch", [1, 4])
def test_every_sample_is_read_once(held_out: Path, ranks: int, batch: int) -> None:
    seen, skipped, lengths = Counter[str](), Counter[str](), set[int]()
    for rank in range(ranks):
        reader = every_sample(held_out, rank=rank, world_size=ranks, batch=batch)
        batches = list(reader)
        lengths |= {len(batches), len(reader)}
        for one in batches:
            assert one.data["video"].shape == (batch, 4, 2, 4, 3)
            assert one.data["num_frames"].tolist() == [4] * batch
            assert one.data["num_frames"].dtype == one.data["label"].dtype == torch.int64
            assert len(one.ids) == batch
            skipped.update(sample.key for sample in one.skipped)
            seen.update(one.ids[place].key for place in one.numbers)
    assert len(lengths) == 1
    assert seen == Counter(set(KEYS) - set(DAMAGED))
    assert skipped == Counter(DAMAGED)


def test_blank_clips_stand_in_for_what_is_missing(held_out: Path) -> None:
    (only,) = every_sample(held_out, batch=20)
    assert [sample.key for sample in only.ids] == [*KEYS, "", ""]
    assert only.numbers == {n: n for n, key in enumerate(KEYS) if key not in DAMAGED}
    missing = [place for place in range(20) if place not in only.numbers]
    assert not only.data["video"][missing].any()
    assert only.data["label"][missing].tolist() == [-1] * 4
    beyond = list(every_sample(held_out, rank=8, world_size=9, batch=4))
    assert [(one.ids, one.numbers) for one in beyond] == [((SampleId(0, 0, ""),) * 4, {})]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(held_out: Path, workers: int) -> None:
    def batches(workers: int) -> list[tuple]:
        options = {"rank": 1, "world_size": 2, "workers": workers, "prefetch": 2}
        return [
            (one.ids, one.skipped, one.numbers, one.infos, one.data["video"].tolist())
            for one in every_sample(held_out, **options)
        ]

    assert batches(workers) == batches(0)


def test_each_iteration_reads_the_same_windows(held_out: Path) -> None:
    reader = every_sample(held_out)
    first, again = (torch.cat([one.data["video"] for one in reader]) for _ in range(2))
    assert torch.equal(first, again)
    other = torch.cat([one.data["video"] for one in every_sample(held_out, seed=1)])
    assert not torch.equal(first, other)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 3, 9])
def test_ranks_share_whole_batches(
    clip_shards: Path, index: ShardIndex, ranks: int, workers: int
) -> None:
    """Batch b is the same tensor whoever reads it."""
    clips = one_per_sample(index, FRAMES, seed=0)
    alone = read(clip_shards, clips)
    for rank in range(ranks):
        own = read(clip_shards, clips, rank=rank, world_size=ranks, workers=workers)
        expected = alone[rank::ranks]
        assert len(own) == -(-len(alone) // ranks)
        for found, batch in zip(own, expected):
            assert torch.equal(found.data["video"], batch.data["video"])
            assert torch.equal(found.data["num_frames"], batch.data["num_frames"])
            assert found.numbers == batch.numbers
        assert not any(batch.numbers for batch in own[len(expected) :])


def test_batches_may_end_with_their_shard(clip_shards: Path, index: ShardIndex) -> None:
    clips = one_per_sample(index, FRAMES, seed=0)
    batches = read(clip_shards, clips, batch=3, by_shard=True)
    assert [list(batch.numbers.values()) for batch in batches] == [[0, 1, 2], [3], [4, 5, 6]]


def test_frames_are_those_of_the_list(
    clip_shards: Path, index: ShardIndex, moving_noise: Callable[..., np.ndarray]
) -> None:
    clips = [Clip(0, 0, 0, 8), Clip(0, 0, 11, 8), Clip(0, 1, 2, 3), Clip(1, 2, 4, 5)]
    batches = read(clip_shards, clips, batch=3)
    found = videos(batches)
    assert (found[0] == moving_noise(0, 20, 16, 24)[:8]).all()
    assert (found[1] == moving_noise(0, 20, 16, 24)[11:19]).all()
    assert (found[2][:3] == moving_noise(2, 5, 16, 24)[2:5]).all()
    assert (found[3][:5] == moving_noise(5, 16, 16, 24)[4:9]).all()
    assert [batch.data["num_frames"].tolist() for batch in batches] == [[8, 8, 3], [5, 8, 8]]


def test_damaged_samples_are_named(tmp_path: Path, write_clip_shards: Callable[..., Path]) -> None:
    folder = write_clip_shards(tmp_path / "shards", damaged=(1, 4))
    clips = one_per_sample(open_shards(str(folder)).index, FRAMES, seed=0)
    batches = read(folder, clips)
    assert len(videos(batches)) == 5
    skipped = [sample for batch in batches for sample in batch.skipped]
    assert {sample.key for sample in skipped} == {"clip1", "clip4"}


def test_a_sample_without_a_frame_is_named(
    tmp_path: Path, write_clip_shards: Callable[..., Path]
) -> None:
    folder = write_clip_shards(tmp_path / "shards", (0, 9))
    (batch,) = read(folder, [Clip(0, 0, 0, 0), Clip(1, 0, 0, 8)])
    assert [sample.reason for sample in batch.skipped] == ["it has no frames"]
    assert batch.numbers == {1: 1}
    assert batch.data["num_frames"].tolist() == [8, 8]


def test_what_a_reader_refuses(clip_shards: Path) -> None:
    dataset = open_shards(str(clip_shards))
    with pytest.raises(DataError, match="16 x 24"):
        ClipReader(dataset, [], VideoWindows(8, 32, 24), batch=1)
    with pytest.raises(ConfigError, match="batch is 0"):
        ClipReader(dataset, [], READ, batch=0)
