"""A folder of videos is read as the raw shards that are made of it."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from coordtok.data import video_index
from coordtok.data.clip_reader import ClipReader
from coordtok.data.clips import Clip, one_per_sample
from coordtok.data.loader import TrainLoader
from coordtok.data.shards import OpenedShards, open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import DataError
from data_prep.build_shards import build
from data_prep.options import BuildOptions, RunOptions

SIZE = (8, 16, 16)
FORMS = [
    ("cats/a.mp4", 150, {"pixel_format": "yuv420p"}),
    ("cats/b one.avi", 45, {"container": "avi", "codec": "mpeg4", "pixel_format": "yuv420p"}),
    ("dogs/c.ts", 90, {"container": "mpegts", "codec": "mpeg2video", "pixel_format": "yuv420p"}),
    ("dogs/deep/d.mov", 33, {"container": "mov", "codec": "mjpeg", "pixel_format": "yuvj420p"}),
    ("short.webm", 5, {"container": "webm", "codec": "libvpx", "pixel_format": "yuv420p"}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_video) -> Path:
    root = tmp_path_factory.mktemp("raw") / "videos"
    for name, frames, form in FORMS:
        write_video(root / name, frames, 24, 32, **form)
    (root / "short.webm").rename(root / "no suffix")
    (root / "notes.txt").write_text("not a video")
    (root / "broken.mp4").write_bytes(b"not a video either")
    (root / "dangling.mp4").symlink_to("nowhere.mp4")
    return root


@pytest.fixture(scope="module")
def opened(folder: Path) -> OpenedShards:
    return open_shards(str(folder), size=SIZE)


@pytest.fixture(scope="module")
def shards(folder: Path) -> OpenedShards:
    output = folder.parent / "shards"
    size = {"height": 16, "width": 16, "clip_frames": 8}
    options = BuildOptions(str(folder), str(output), codec="raw", **size)
    build(options, RunOptions(workers=1, distributor="local", ray_address=None))
    return open_shards(str(output))


def loader(dataset: OpenedShards, workers: int = 0, state=None) -> TrainLoader:
    return TrainLoader(
        [dataset], VideoWindows(*SIZE), seed=0, rank=0, world_size=1, micro_batch=3,
        workers=workers, prefetch=1, shuffle_block=4, state=state,
    )  # fmt: skip


def test_samples_lanes_and_order_are_those_of_raw_shards(opened, shards) -> None:
    def places(dataset):
        return [
            (shard.name, [(each.key, each.frames, list(each.files)) for each in shard.samples])
            for shard in dataset.index.shards
        ]

    assert places(opened) == places(shards)
    assert opened.index.lanes == shards.index.lanes


def test_training_reads_the_same_pixels_as_from_raw_shards(opened, shards) -> None:
    batches = opened.index.samples // 3 + 2  # into the second epoch
    from_videos, from_shards = iter(loader(opened, workers=2)), iter(loader(shards))
    for _ in range(batches):
        (video, state), (shard, _) = next(from_videos), next(from_shards)
        assert video.ids == shard.ids
        for name, values in shard.data.items():
            assert torch.equal(video.data[name], values), name
    from_videos.close()
    resumed, _ = next(iter(loader(opened, state=state)))
    assert torch.equal(resumed.data["video"], next(from_shards)[0].data["video"])


def test_evaluation_reads_the_same_clips_and_classes(opened, shards) -> None:
    clips = one_per_sample(opened.index, SIZE[0], seed=3)
    assert clips == one_per_sample(shards.index, SIZE[0], seed=3)
    readers = [ClipReader(each, clips, VideoWindows(*SIZE), batch=4) for each in (opened, shards)]
    for video, shard in zip(*readers):
        assert video.infos == shard.infos
        assert torch.equal(video.data["video"], shard.data["video"])
        assert torch.equal(video.data["label"], shard.data["label"])


def test_any_bytes_of_a_sample_are_those_of_its_npy(opened, shards) -> None:
    ours, stored = (each.reader.sample(0, 0) for each in (opened, shards))
    size = ours.entry.files["npy"][1]
    whole = ours.read("npy")
    assert whole[1024:] == stored.read("npy")[128:]
    for offset, count in [(0, 2000), (1000, 30), (1500, 3000), (size - 7, 7)]:
        assert ours.read("npy", offset, count) == whole[offset : offset + count]


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def index_beside(folder: Path) -> dict:
    return json.loads(folder.with_name(f"{folder.name}.coordtok.json").read_text())["videos"]


def test_only_what_changed_is_decoded_again(folder, tmp_path, monkeypatch) -> None:
    root = copy(folder / "dogs", tmp_path / "videos")
    looked_at = []
    survey = video_index._survey

    def watched(path, threads):
        looked_at.append(path)
        return survey(path, threads)

    monkeypatch.setattr(video_index, "_survey", watched)
    first = open_shards(str(root), size=SIZE).index
    assert index_beside(root).keys() == {"c.ts", "deep/d.mov"}
    assert open_shards(str(root), size=SIZE).index.fingerprint == first.fingerprint
    assert len(looked_at) == 2
    os.utime(root / "c.ts", (1, 1))
    assert open_shards(str(root), size=SIZE).index.fingerprint != first.fingerprint
    assert looked_at[2:] == [str(root / "c.ts")]


def test_the_index_of_a_folder_that_cannot_be_written_beside_is_cached(
    folder, tmp_path, monkeypatch
) -> None:
    root = copy(folder / "dogs", tmp_path / "videos")
    monkeypatch.setenv("COORDTOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    first = open_shards(str(root), size=SIZE).index
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "videos"]
    monkeypatch.setattr(video_index, "_survey", None)
    assert open_shards(str(root), size=SIZE).index.fingerprint == first.fingerprint


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"version": 1, "videos": {"c.ts": {"frames": 1e9}}}']
)
def test_a_damaged_index_is_made_anew(folder, tmp_path, damage) -> None:
    root = copy(folder / "dogs", tmp_path / "videos")
    (tmp_path / "videos.coordtok.json").write_text(damage)
    assert open_shards(str(root), size=SIZE).index.samples
    assert index_beside(root)["c.ts"]["frames"] == 90


def test_a_damaged_stretch_is_a_skip_that_names_the_video(folder, tmp_path) -> None:
    root = copy(folder / "dogs/deep", tmp_path / "videos")
    before = (root / "d.mov").stat()
    opened = open_shards(str(root), size=SIZE)
    data = bytearray((root / "d.mov").read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    (root / "d.mov").write_bytes(data)
    os.utime(root / "d.mov", ns=(before.st_mtime_ns, before.st_mtime_ns))
    clips = [Clip(0, 0, start, 8) for start in (0, 24)]
    first, *_ = ClipReader(opened, clips, VideoWindows(*SIZE), batch=2)
    assert len(first.skipped) >= 1
    assert "d.mov: " in first.skipped[0].reason


def test_a_video_that_changes_under_way_ends_the_run(folder, tmp_path) -> None:
    root = copy(folder / "dogs/deep", tmp_path / "videos")
    opened = open_shards(str(root), size=SIZE)
    os.utime(root / "d.mov", (1, 1))
    with pytest.raises(DataError, match=r"d\.mov was changed"):
        next(iter(loader(opened)))


def test_what_is_left_out_and_what_shards_would_save_is_said(folder, tmp_path, caplog) -> None:
    open_shards(str(folder), size=SIZE)
    broken, dangling, advice = (record.getMessage() for record in caplog.records)
    assert broken.startswith("left out: broken.mp4: ")
    assert dangling == "left out: dangling.mp4: a link to no file"
    assert f"--input {folder} --output shards/videos --clip-frames 8 --height 16" in advice


@pytest.mark.parametrize("size", [None, SIZE])
def test_the_whole_file_system_is_not_searched(monkeypatch, size) -> None:
    monkeypatch.setattr("coordtok.video.folder._MOST_LOOKED_AT", 10)
    with pytest.raises(DataError, match=r"^/ (is the whole file system|holds neither shards)"):
        open_shards("/", size=size)


def test_without_a_size_and_without_a_usable_video_it_is_one_line(folder, tmp_path) -> None:
    with pytest.raises(DataError, match="holds videos, and shards are wanted"):
        open_shards(str(folder))
    (tmp_path / "a.mp4").write_text("text")
    with pytest.raises(DataError, match=r"no video of 1 in .* can be used: a\.mp4: "):
        open_shards(str(tmp_path), size=SIZE)
    (tmp_path / "a.mp4").rename(tmp_path / "a.txt")
    with pytest.raises(DataError, match="neither shards nor videos"):
        open_shards(str(tmp_path), size=SIZE)
