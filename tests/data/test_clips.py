"""Which clips are read: pure functions of the index."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from coordtok.data.clips import (
    Clip,
    ClipChoice,
    WindowChoice,
    draw_clips,
    one_per_sample,
    read_clips,
    to_csv,
)
from coordtok.data.index import SampleEntry, ShardIndex
from coordtok.data.shards import open_shards
from coordtok.errors import ConfigError, DataError

FRAMES = 8
WINDOWS = 13 + 1 + 0 + 5 + 2 + 9 + 1
"""Of 8 frames in samples of 20, 8, 5, 12, 9, 16 and 8."""


@pytest.fixture(scope="module")
def index(clip_shards: Path) -> ShardIndex:
    return open_shards(str(clip_shards)).index


def lengths(clips: list[Clip], index: ShardIndex) -> list[int]:
    return [index.shards[clip.shard].samples[clip.sample].frames for clip in clips]


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


def video(frames: int, key: str = "key") -> SampleEntry:
    return SampleEntry(key, frames, {"npy": (512, 1)})


@pytest.mark.parametrize(
    ("frames", "starts"),
    [(0, [0]), (5, [0]), (8, [0]), (9, [0, 1]), (16, [0, 8]), (21, [0, 8, 13]), (24, [0, 8, 16])],
)
def test_all_windows_cover_every_frame_and_are_full(frames: int, starts: list[int]) -> None:
    assert WindowChoice().starts(video(frames), 8) == starts


def test_random_windows_depend_on_seed_and_key_and_nothing_else() -> None:
    choice = WindowChoice(4, seed=3)
    starts = choice.starts(video(1000), 8)
    assert starts == sorted(set(starts))
    assert len(starts) == 4
    assert starts == choice.starts(video(1000), 8)
    assert starts != WindowChoice(4, seed=4).starts(video(1000), 8)
    assert starts != choice.starts(video(1000, "other"), 8)
    more = WindowChoice(9, seed=3).starts(video(1000), 8)
    assert set(starts) <= set(more)


def test_no_window_comes_twice() -> None:
    assert WindowChoice(50).starts(video(10), 8) == [0, 1, 2]
    assert WindowChoice(50).starts(video(8), 8) == [0]
    assert WindowChoice(50).starts(video(3), 8) == [0]
    assert WindowChoice(50).starts(video(0), 8) == [0]


def test_the_windows_of_a_shard_are_clips(index: ShardIndex) -> None:
    assert WindowChoice().of_shard(index, 0, FRAMES) == [
        *(Clip(0, 0, start, FRAMES) for start in (0, 8, 12)),
        Clip(0, 1, 0, 5),
        *(Clip(0, 2, start, FRAMES) for start in (0, 1)),
        Clip(0, 3, 0, FRAMES),
    ]


def test_parsing() -> None:
    assert WindowChoice.parse("all", 1) == WindowChoice(None, 1)
    assert WindowChoice.parse("8", 0) == WindowChoice(8, 0)
    assert [str(WindowChoice()), str(WindowChoice(8))] == ["all", "8"]


@pytest.mark.parametrize("text", ["0", "-1", "few", "", "1.5", "²"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="windows is"):
        WindowChoice.parse(text, 0)
