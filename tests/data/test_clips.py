"""Which clips are scored, and who reads which."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from coordtok.data.clip_reader import ClipBatch, ClipReader
from coordtok.data.clips import (
    Clip,
    ClipChoice,
    draw_clips,
    one_per_sample,
    read_clips,
    to_csv,
)
from coordtok.data.index import ShardIndex
from coordtok.data.loader import EvalLoader, VideoWindows, open_shards
from coordtok.errors import ConfigError, DataError

FRAMES = 8
READ = VideoWindows(FRAMES, 16, 24)
WINDOWS = 13 + 1 + 0 + 5 + 2 + 9 + 1
"""Of 8 frames in samples of 20, 8, 5, 12, 9, 16 and 8."""


@pytest.fixture(scope="module")
def index(clip_shards: Path) -> ShardIndex:
    return open_shards(str(clip_shards)).index


def lengths(clips: list[Clip], index: ShardIndex) -> list[int]:
    return [index.shards[clip.shard].samples[clip.sample].frames for clip in clips]


def read(folder: Path, clips: list[Clip], **options: int) -> list[ClipBatch]:
    return list(ClipReader(open_shards(str(folder)), clips, READ, **{"batch": 2, **options}))


def videos(batches: list[ClipBatch]) -> dict[int, np.ndarray]:
    return {
        number: batch.video_BTHW3[place].numpy()
        for batch in batches
        for place, number in batch.numbers.items()
    }


def test_every_sample_once_as_validation_reads_it(clip_shards: Path, index: ShardIndex) -> None:
    clips = one_per_sample(index, FRAMES, seed=3)
    own = videos(read(clip_shards, clips))
    loader = EvalLoader(open_shards(str(clip_shards)), READ, seed=3, rank=0, world_size=1, batch=1)
    theirs = [batch.data["video"][0].numpy() for batch in loader]
    assert len(own) == len(theirs) == 7
    assert all((own[number] == video).all() for number, video in enumerate(theirs))


def test_samples_without_a_frame(tmp_path: Path, write_clip_shards: Callable[..., Path]) -> None:
    some = open_shards(str(write_clip_shards(tmp_path / "some", (0, 9)))).index
    assert [clip.sample for clip in one_per_sample(some, FRAMES, seed=0)] == [0]
    none = open_shards(str(write_clip_shards(tmp_path / "none", (0, 0)))).index
    with pytest.raises(DataError, match="no sample of the shards has a frame"):
        one_per_sample(none, FRAMES, seed=0)


def test_random_clips_are_different_whole_and_spread_evenly(index: ShardIndex) -> None:
    clips = draw_clips(index, FRAMES, 12, seed=0)
    assert len(set(clips)) == 12
    assert all(clip.frames == FRAMES for clip in clips)
    assert 5 not in lengths(clips, index)
    per_sample = Counter((clip.shard, clip.sample) for clip in clips)
    assert len(per_sample) == 6
    assert sorted(per_sample.values()) == [1, 1, 2, 2, 3, 3]
    assert clips == sorted(clips)
    assert clips == draw_clips(index, FRAMES, 12, seed=0)
    assert clips != draw_clips(index, FRAMES, 12, seed=1)


def test_all_windows_and_not_one_more(index: ShardIndex) -> None:
    assert len(set(draw_clips(index, FRAMES, WINDOWS, seed=0))) == WINDOWS
    with pytest.raises(DataError, match=f"more than the {WINDOWS} different ones"):
        draw_clips(index, FRAMES, WINDOWS + 1, seed=0)
    with pytest.raises(DataError, match="no sample of the shards has 99 frames"):
        draw_clips(index, 99, 1, seed=0)


def test_a_list_gives_the_same_clips(tmp_path: Path, index: ShardIndex) -> None:
    clips = one_per_sample(index, FRAMES, seed=0)
    path = tmp_path / "clips.csv"
    for encoding in ("utf-8", "utf-8-sig"):  # with a spreadsheet's mark in front
        path.write_text(to_csv(clips, index), encoding)
        assert read_clips(path, index, FRAMES) == clips
    assert ClipChoice(listed=path).choose(index, FRAMES) == clips


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("part-000000.tar,clip9,0,8", "'clip9' of 'part-000000.tar' is not in the shards"),
        ("part-000000.tar,clip0,13,8", "frames 13 to 21 of a sample of 20"),
        ("part-000000.tar,clip0,0,0", "frames 0 to 0"),
        ("part-000000.tar,clip0,0,9", "the model takes at most 8"),
        ("part-000000.tar,clip0,-1,8", "'-1' is no number of frames"),
        ("part-000000.tar,clip0,0", "None is no number of frames"),
        ("part-000000.tar,clip0,0,8\npart-000000.tar,clip0,0,8", "'clip0' twice"),
    ],
)
def test_a_list_of_other_clips(tmp_path: Path, index: ShardIndex, line: str, message: str) -> None:
    path = tmp_path / "clips.csv"
    path.write_text(f"shard,key,start,frames\n{line}\n")
    with pytest.raises((DataError, ConfigError), match=message) as caught:
        read_clips(path, index, FRAMES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"shard,key\na,b\n", b"\xff\xfe\x00", None])
def test_what_is_no_list(tmp_path: Path, index: ShardIndex, content: bytes | None) -> None:
    path = tmp_path / "clips.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="list of clips"):
        read_clips(path, index, FRAMES)


def test_one_way_to_choose_clips() -> None:
    with pytest.raises(ConfigError, match="both say"):
        ClipChoice(number=3, listed=Path("clips.csv"))
    with pytest.raises(ConfigError, match="score at least 1"):
        ClipChoice(number=0)


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
        assert len(own) == len(expected)
        for found, batch in zip(own, expected):
            assert torch.equal(found.video_BTHW3, batch.video_BTHW3)
            assert (found.numbers, found.frames_B) == (batch.numbers, batch.frames_B)


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
    assert [batch.frames_B for batch in batches] == [[8, 8, 3], [5, 8, 8]]


def test_damaged_samples_are_named(tmp_path: Path, write_clip_shards: Callable[..., Path]) -> None:
    folder = write_clip_shards(tmp_path / "shards", damaged=(1, 4))
    clips = one_per_sample(open_shards(str(folder)).index, FRAMES, seed=0)
    batches = read(folder, clips)
    assert len(videos(batches)) == 5
    skipped = [sample for batch in batches for sample in batch.skipped]
    assert {sample.key for sample in skipped} == {"clip1", "clip4"}


def test_what_a_reader_refuses(clip_shards: Path) -> None:
    source = open_shards(str(clip_shards))
    with pytest.raises(DataError, match="16 x 24"):
        ClipReader(source, [], VideoWindows(8, 32, 24), batch=1)
    with pytest.raises(ConfigError, match="batch is 0"):
        ClipReader(source, [], READ, batch=0)
