import io
import json
import os
import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import webdataset

from coordtok.data.index import ShardIndex
from coordtok.errors import ConfigError, DataError
from coordtok.video.decoding import decode_frames
from coordtok.video.source import open_video, resize_and_crop
from data_prep.build_shards import build
from data_prep.options import RunOptions

LOCAL = RunOptions(workers=2, distributor="local", ray_address=None)


def shard_bytes(folder):
    """Everything a reader of the dataset sees."""
    paths = [*folder.glob("*.tar"), folder / "index.json", folder / "failures.jsonl"]
    return {path.name: path.read_bytes() for path in paths}


def read_index(folder):
    return ShardIndex.from_json((folder / "index.json").read_text(), "index")


def read_samples(folder):
    urls = sorted(str(path) for path in folder.glob("*.tar"))
    return list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))


def failures(folder):
    lines = (folder / "failures.jsonl").read_text().splitlines()
    return {each["source"]: each["reason"] for each in map(json.loads, lines)}


@pytest.fixture(scope="module")
def built(tmp_path_factory, some_videos, options):
    folder = tmp_path_factory.mktemp("built") / "out"
    made = options(some_videos, folder)
    summary, before = build(made, LOCAL)
    assert not before
    return folder, summary, made


def test_every_frame_of_every_video_is_there_once(built, some_videos):
    folder, summary, _ = built
    videos = {}
    for sample in read_samples(folder):
        info = json.loads(sample["json"])
        assert info["fps"] == 24
        frames = decode_frames(sample["mp4"], 0, info["frames"])
        videos.setdefault(info["source"], {})[info["start_frame"]] = frames
    lengths = {"cats/a.mp4": 40, "cats/b one.mp4": 5, "dogs/a.mp4": 30}
    lengths |= {"dogs/deep/c.mp4": 20, "dogs/deep/d.mp4": 16}
    assert videos.keys() == lengths.keys()
    for name, segments in videos.items():
        stored = np.concatenate([segments[start] for start in sorted(segments)])
        wanted = [resize_and_crop(f, 16, 16) for f in open_video(some_videos / name).frames()]
        assert len(stored) == lengths[name]
        assert np.abs(stored.astype(int) - np.stack(wanted)).mean() < 4
    assert (summary.videos, summary.segments, summary.frames) == (5, 8, 111)
    assert summary.psnr_rgb > 35


def test_the_index_tells_what_is_there(built):
    folder, summary, _ = built
    index = read_index(folder)
    assert (index.video.frames, index.video.height, index.video.width) == (8, 16, 16)
    assert index.video.fps is None
    assert index.codec == {"name": "h264", "crf": 18.0, "gop": 4, "pixel_format": "yuv444p"}
    assert index.lanes == 8
    assert index.samples == summary.segments == 8
    keys = [sample["__key__"] for sample in read_samples(folder)]
    assert keys == [sample.key for shard in index.shards for sample in shard.samples]
    assert len(set(keys)) == 8


def test_classes_travel_with_the_samples(built):
    classes = {}
    for sample in read_samples(built[0]):
        info = json.loads(sample["json"])
        classes[info["source"]] = (info["class"], info["class_name"], info["split"])
    assert classes["cats/a.mp4"] == (0, "cats", None)
    assert classes["dogs/a.mp4"] == classes["dogs/deep/c.mp4"] == (1, "dogs", None)


def test_nothing_else_is_left(built):
    names = {path.name for path in built[0].iterdir()}
    shards = {shard.name for shard in read_index(built[0]).shards}
    assert names == shards | {"index.json", "failures.jsonl", "build.json"}


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_processes_changes_no_byte(tmp_path, built, some_videos, options, workers):
    build(options(some_videos, tmp_path / "out"), RunOptions(workers, "local", None))
    assert shard_bytes(tmp_path / "out") == shard_bytes(built[0])


def test_a_finished_build_says_so(built, run_build, some_videos):
    before = shard_bytes(built[0])
    done = run_build(some_videos, built[0])
    assert done.code == 0
    assert "already built" in done.out
    assert "PSNR" in done.out
    assert shard_bytes(built[0]) == before


def test_a_folder_built_before_lanes_were_even_by_default_is_finished(tmp_path, built, some_videos):
    folder = shutil.copytree(built[0], tmp_path / "out")
    record = json.loads((folder / "build.json").read_text())
    record["settings"]["lanes"] = 96
    (part,) = record["summary"].pop("parts").values()
    for name in ("short", "damaged", "named"):
        del record["summary"][name]
    record["summary"].update(part)
    (folder / "build.json").write_text(json.dumps(record))
    made = replace(built[2], output=str(folder))
    finished, before = build(made, LOCAL)
    assert before
    assert finished.parts == built[1].parts
    with pytest.raises(ConfigError, match="lanes 96, not 3"):
        build(replace(made, lanes=3), LOCAL)


def test_other_settings_on_the_same_folder_are_refused(built, run_build, some_videos):
    done = run_build(some_videos, built[0], "--crf", "30")
    assert done.code == 2
    (line,) = done.error
    assert "crf 18.0, not 30.0" in line


def test_a_folder_of_something_else_is_refused(tmp_path, options, some_videos):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DataError, match="not empty"):
        build(options(some_videos, tmp_path), LOCAL)
    (tmp_path / "build.json").write_text("{}")
    with pytest.raises(DataError, match="damaged"):
        build(options(some_videos, tmp_path), LOCAL)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot use"):
        build(options(some_videos, tmp_path / "file"), LOCAL)
    with pytest.raises(ConfigError, match="is the input"):
        build(options(some_videos, some_videos), LOCAL)


def test_raw_keeps_every_pixel(tmp_path, options, some_videos):
    summary, _ = build(options(some_videos / "cats", tmp_path / "out", codec="raw"), LOCAL)
    assert summary.psnr_rgb is None
    assert "exactly" in summary.text(tmp_path, 8)
    for sample in read_samples(tmp_path / "out"):
        info = json.loads(sample["json"])
        stored = np.load(io.BytesIO(sample["npy"]))
        video = open_video(some_videos / "cats" / info["source"])
        wanted = [resize_and_crop(frame, 16, 16) for frame in video.frames()]
        start = info["start_frame"]
        np.testing.assert_array_equal(stored, wanted[start : start + info["frames"]])


def test_one_film_is_split_by_time(tmp_path, write_video, options):
    film = write_video(tmp_path / "film/film.mp4", 60, 24, 24).parent
    parts = {"train": (0, 40), "val": (40, 55)}
    spans = {}
    for name, frames in parts.items():
        build(options(film, tmp_path / name, frames=frames, codec="raw"), LOCAL)
        infos = [json.loads(sample["json"]) for sample in read_samples(tmp_path / name)]
        spans[name] = sorted((each["start_frame"], each["frames"]) for each in infos)
    assert spans == {"train": [(0, 16), (16, 16), (32, 8)], "val": [(40, 15)]}


def test_a_steady_rate_is_recorded(tmp_path, write_video, options):
    folder = write_video(tmp_path / "in/a.mp4", 40, 24, 24).parent
    summary, _ = build(options(folder, tmp_path / "out", fps=Fraction(12)), LOCAL)
    assert summary.frames == 20
    assert read_index(tmp_path / "out").video.fps == 12
    assert json.loads(read_samples(tmp_path / "out")[0]["json"])["fps"] == 12


@pytest.fixture
def bad_files(tmp_path, write_video, write_sound):
    """One good video, and one of every kind that cannot be used or needs care."""
    root = tmp_path / "bad"
    write_video(root / "good.mp4", 20)
    write_video(root / "one frame.mp4", 1)
    write_video(root / "odd.mp4", 20, 37, 51)
    write_video(root / "turned.mp4", 20, rotation=90)
    write_video(root / "uneven.mp4", 6, times=[0, 1, 5, 6, 7, 40])
    write_video(root / 'it\'s "new\nline".mp4', 9)
    write_video(root / "映画.mp4", 9)
    write_video(root / os.fsdecode(b"caf\xe9.mp4"), 9)
    write_sound(root / "sound.mp4")
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("no video " * 100)
    whole = write_video(root / "cut.mp4", 30).read_bytes()
    (root / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return root


def test_bad_videos_are_counted_and_named(tmp_path, bad_files, options):
    summary, _ = build(options(bad_files, tmp_path / "out"), LOCAL)
    left_out = failures(tmp_path / "out")
    assert left_out.keys() == {"one frame.mp4", "sound.mp4", "empty.mp4", "text.mp4", "cut.mp4"}
    assert "--min-frames 2" in left_out["one frame.mp4"]
    assert "moving picture" in left_out["sound.mp4"]
    assert all(reason and "\n" not in reason for reason in left_out.values())
    assert (summary.videos, summary.failures) == (7, 5)
    told = summary.text(tmp_path, 8)
    assert all(f"{name}: {reason}" in told for name, reason in left_out.items())
    assert "uneven.mp4: 6 frames" in told
    sources = {json.loads(sample["json"])["source"] for sample in read_samples(tmp_path / "out")}
    assert len(sources) == 7
    assert "caf\\xe9.mp4" in sources


def test_files_are_told_by_their_contents_and_those_ignored_are_named(
    tmp_path, write_video, write_sound, options
):
    write_video(tmp_path / "in/game.swf", 9, container="flv", codec="flv1", pixel_format="yuv420p")
    write_video(tmp_path / "in/cats/a.mp4", 9)
    write_sound(tmp_path / "in/music/song.m4a")
    (tmp_path / "in/.hidden").touch()
    summary, _ = build(options(tmp_path / "in", tmp_path / "out"), LOCAL)
    infos = [json.loads(sample["json"]) for sample in read_samples(tmp_path / "out")]
    assert sorted((each["source"], each["class"]) for each in infos) == [
        ("cats/a.mp4", 0),
        ("game.swf", None),
    ]
    named = {".hidden": "a hidden file", "music/song.m4a": "no moving picture in it, only sound"}
    for name, reason in named.items():
        assert failures(tmp_path / "out")[name].startswith(reason)
        assert f"{name}: {reason}" in summary.text(tmp_path, 8)


def test_what_comes_before_a_damage_can_be_kept(tmp_path, write_video, options):
    film = write_video(tmp_path / "in/film.mkv", 60, container="matroska", sound=True)
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    write_video(tmp_path / "in/whole.mp4", 9)
    with pytest.raises(DataError, match=r"no video of 2 can be used: film.mkv: cut off: \d+ of"):
        build(options(tmp_path / "in", tmp_path / "left", min_frames=20), LOCAL)
    for workers in (1, 4):
        made = options(tmp_path / "in", tmp_path / f"kept{workers}", keep_damaged=True)
        summary, _ = build(made, RunOptions(workers, "local", None))
        assert (summary.videos, summary.damaged) == (2, 1)
        assert "film.mkv: cut off: " in summary.text(tmp_path, 8)
        assert 29 < summary.frames < 49
    assert shard_bytes(tmp_path / "kept1") == shard_bytes(tmp_path / "kept4")


def test_nothing_usable_is_one_line(tmp_path, run_build):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.mp4").write_text("no video")
    done = run_build(tmp_path / "in", tmp_path / "out")
    assert done.code == 2
    (line,) = done.error
    assert "no video of 1 can be used: a.mp4" in line
    assert failures(tmp_path / "out").keys() == {"a.mp4"}
    assert not (tmp_path / "out/index.json").exists()


def test_a_missing_input_is_one_line(tmp_path, run_build):
    done = run_build(tmp_path / "nowhere", tmp_path / "out")
    assert done.code == 2
    assert len(done.error) == 1
    assert "nowhere" in done.error[0]


def test_a_range_beyond_a_video_is_named(tmp_path, options, some_videos):
    summary, _ = build(options(some_videos, tmp_path / "out", frames=(18, None)), LOCAL)
    assert summary.videos == 3
    reason = failures(tmp_path / "out")["cats/b one.mp4"]
    assert "before frame 18" in reason
