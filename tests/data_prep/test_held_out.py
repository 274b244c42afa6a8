import json

import pytest

from coordtok.data.index import ShardIndex
from coordtok.errors import ConfigError, DataError
from data_prep.build_shards import build
from data_prep.held_out import held_out_videos, train_frames
from data_prep.options import RunOptions, parse
from data_prep.verify_shards import main as verify

LOCAL = RunOptions(workers=2, distributor="local", ray_address=None)


def spans(folder):
    """(source, first frame, frames) of every sample, by the shards' names and contents."""
    index = ShardIndex.from_json((folder / "index.json").read_text(), "index")
    found = []
    for shard in index.shards:
        data = (folder / shard.name).read_bytes()
        for sample in shard.samples:
            offset, size = sample.files["json"]
            info = json.loads(data[offset : offset + size])
            assert info["split"] == folder.name
            found.append((info["source"], info["start_frame"], info["frames"]))
    return sorted(found)


def all_bytes(folder):
    paths = [*folder.rglob("*.tar"), *folder.rglob("*.json*")]
    skip = "build.json"
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.name != skip}


def test_whole_videos_are_held_out(tmp_path, some_videos, options, capsys):
    """Of 111 frames the 20 or the 16 of two videos fit into a fifth; the link to one of them, and
    the video shorter than a clip, are on the side of training or of their file."""
    summary, _ = build(options(some_videos, tmp_path / "out", val_fraction=0.2), LOCAL)
    train, val = spans(tmp_path / "out/train"), spans(tmp_path / "out/val")
    held_out = {source for source, _, _ in val}
    assert held_out in ({"dogs/deep/c.mp4"}, {"dogs/deep/d.mp4"})
    assert not held_out & {source for source, _, _ in train}
    assert sum(frames for _, _, frames in train + val) == summary.frames == 111
    assert f"data.val_shards={tmp_path}/out/val" in summary.text(tmp_path / "out", 8)
    assert verify([str(tmp_path / "out")]) == 0
    assert "out/train: " in capsys.readouterr().out
    again, before = build(options(some_videos, tmp_path / "out", val_fraction=0.2), LOCAL)
    assert (again, before) == (summary, True)


def test_of_one_film_the_end_is_held_out_whatever_the_workers(tmp_path, write_video, options):
    film = write_video(tmp_path / "in/film.mp4", 100).parent
    for workers in (1, 3):
        made = options(film, tmp_path / f"{workers}", val_fraction=0.1)
        build(made, RunOptions(workers, "local", None))
    assert all_bytes(tmp_path / "1") == all_bytes(tmp_path / "3")
    train, val = spans(tmp_path / "1/train"), spans(tmp_path / "1/val")
    assert [start for _, start, _ in train] == [0, 16, 32, 48, 64, 80]
    assert sum(frames for _, _, frames in train) == 90
    assert val == [("film.mp4", 90, 10)]


def test_links_to_one_file_stay_on_one_side(tmp_path, write_video, options):
    for name in "abc":
        write_video(tmp_path / f"in/{name}.mp4", 20)
        (tmp_path / f"in/link to {name}.mp4").symlink_to(tmp_path / f"in/{name}.mp4")
    build(options(tmp_path / "in", tmp_path / "out", val_fraction=0.4), LOCAL)
    (held_out,) = {source.removeprefix("link to ") for source, _, _ in spans(tmp_path / "out/val")}
    assert len(spans(tmp_path / "out/val")) == 2
    assert held_out not in {source for source, _, _ in spans(tmp_path / "out/train")}


def test_nothing_to_hold_out_is_one_line(tmp_path, write_video, options):
    short = write_video(tmp_path / "short/a.mp4", 15).parent
    with pytest.raises(DataError, match="no video is two clips of 8 frames long"):
        build(options(short, tmp_path / "out", val_fraction=0.1), LOCAL)
    (short / "b.mp4").write_text("no video")
    with pytest.raises(DataError, match="only 1 video can be used"):
        build(options(short, tmp_path / "out2", val_fraction=0.5), LOCAL)
    needed = ["--input", "in", "--output", "out"]
    for value in ("0", "1", "-0.1", "big"):
        with pytest.raises(ConfigError, match="--val-fraction"):
            parse([*needed, f"--val-fraction={value}"])
    ucf = ["--dataset", "ucf101", "--splits", "s", "--split", "train"]
    with pytest.raises(ConfigError, match="--split test"):
        parse([*needed, *ucf, "--val-fraction", "0.1"])


def test_as_much_is_held_out_as_fits():
    frames = {f"{number}": 100 for number in range(20)} | {"film": 10_000, "short": 5}
    chosen = held_out_videos(frames, 0.05, 16, seed=0)
    assert len(chosen) == 6
    assert not {"film", "short"} & chosen
    assert chosen != held_out_videos(frames, 0.05, 16, seed=1)
    assert held_out_videos({"a": 100, "b": 90}, 0.1, 16, seed=0) == {"b"}


@pytest.mark.parametrize(
    ("frames", "kept"), [(2000, 1800), (300, 172), (256, 128), (255, None), (0, None)]
)
def test_a_clip_at_least_is_on_both_sides(frames, kept):
    assert train_frames(frames, 0.1, 128) == kept
