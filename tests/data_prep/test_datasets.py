import os

import pytest

from coordtok.errors import ConfigError, DataError
from data_prep.datasets import scan


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def names(found):
    return [video.name for video in found.videos]


def test_class_folders_at_any_depth(tmp_path, options):
    touch(tmp_path / "in", "b/1.mp4", "a/deep/2.AVI", "a/3.mkv", "top.mp4", "a/notes.txt")
    found = scan(options(tmp_path / "in", tmp_path / "out"))
    assert [(each.name, each.label, each.class_name) for each in found.videos] == [
        ("a/3.mkv", 0, "a"),
        ("a/deep/2.AVI", 0, "a"),
        ("b/1.mp4", 1, "b"),
        ("top.mp4", None, None),
    ]
    ((name, reason),) = found.ignored
    assert name == "a/notes.txt"
    assert "no format" in reason


def test_a_flat_folder_has_no_classes(tmp_path, options):
    touch(tmp_path / "in", "1.mp4", "2.mp4")
    found = scan(options(tmp_path / "in", tmp_path / "out", split="val"))
    assert [(each.label, each.split) for each in found.videos] == [(None, "val")] * 2


def test_the_output_and_hidden_files_are_not_read(tmp_path, options):
    touch(tmp_path, "a/1.mp4", "a/._1.mp4", "out/.work/2.mp4")
    assert names(scan(options(tmp_path, tmp_path / "out"))) == ["a/1.mp4"]


def test_linked_folders_are_read_once(tmp_path, options):
    touch(tmp_path / "elsewhere", "1.mp4")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/linked/loop").symlink_to(tmp_path / "in")
    assert names(scan(options(tmp_path / "in", tmp_path / "out"))) == ["linked/1.mp4"]


def test_names_of_any_bytes_are_printable(tmp_path, options):
    touch(tmp_path / "in", os.fsdecode(b"caf\xe9/new\nline.mp4"))
    (video,) = scan(options(tmp_path / "in", tmp_path / "out")).videos
    assert video.name == "caf\\xe9/new\nline.mp4"
    assert os.path.exists(video.path)


@pytest.mark.parametrize("what", ["missing", "empty", "only text"])
def test_a_folder_without_videos_is_one_line(tmp_path, options, what):
    if what != "missing":
        (tmp_path / "in").mkdir()
    if what == "only text":
        touch(tmp_path / "in", "notes.txt")
    with pytest.raises(DataError) as caught:
        scan(options(tmp_path / "in", tmp_path / "out"))
    assert str(tmp_path / "in") in str(caught.value)


@pytest.fixture
def ucf(tmp_path):
    touch(tmp_path / "UCF", "Archery/v_Archery_g01_c01.avi", "YoYo/v_YoYo_g08_c01.avi")
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "classInd.txt").write_text("1 Archery\r\n2 YoYo\r\n")
    (splits / "trainlist01.txt").write_text("YoYo/v_YoYo_g08_c01.avi 2\r\nYoYo/v_gone.avi 2\r\n")
    (splits / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    return {"dataset": "ucf101", "splits": str(splits)}


def test_ucf101_follows_its_split_files(tmp_path, options, ucf):
    found = scan(options(tmp_path / "UCF", tmp_path / "out", split="train", **ucf))
    (video,) = found.videos
    assert (video.label, video.class_name, video.split) == (1, "YoYo", "train")
    assert found.failures == [("YoYo/v_gone.avi", "listed, but there is no such file")]
    (video,) = scan(options(tmp_path / "UCF", tmp_path / "out", split="test", **ucf)).videos
    assert (video.label, video.class_name, video.split) == (0, "Archery", "test")


def test_ucf101_without_its_files_is_one_line(tmp_path, options, ucf):
    with pytest.raises(DataError, match="trainlist02"):
        scan(options(tmp_path / "UCF", tmp_path / "out", split="train", fold=2, **ucf))
    with pytest.raises(ConfigError, match="train and test"):
        scan(options(tmp_path / "UCF", tmp_path / "out", split="val", **ucf))
    with pytest.raises(ConfigError, match="--splits"):
        options(tmp_path / "UCF", tmp_path / "out", dataset="ucf101")
    (tmp_path / "splits/trainlist01.txt").write_text("../../etc/passwd 1\n")
    with pytest.raises(DataError, match="classInd"):
        scan(options(tmp_path / "UCF", tmp_path / "out", split="train", **ucf))


KINETICS = """label,youtube_id,time_start,time_end,split
yoga,-a_b,5,15,train
yoga,cc,1.0,11.0,train
abseiling,dd,0,10,val
abseiling,gone,0,10,train
yoga,../../etc/passwd,0,10,train
"""


def test_kinetics_finds_both_kinds_of_names(tmp_path, options):
    touch(tmp_path / "in", "yoga/-a_b_000005_000015.mp4", "cc.webm", "dd_0_10.mkv")
    (tmp_path / "k.csv").write_text(KINETICS)
    made = {"dataset": "kinetics", "csv": str(tmp_path / "k.csv")}
    found = scan(options(tmp_path / "in", tmp_path / "out", split="train", **made))
    assert [(each.name, each.label, each.class_name) for each in found.videos] == [
        ("cc.webm", 1, "yoga"),
        ("yoga/-a_b_000005_000015.mp4", 1, "yoga"),
    ]
    assert len(found.failures) == 2
    everything = scan(options(tmp_path / "in", tmp_path / "out", **made))
    assert [video.split for video in everything.videos] == ["train", "val", "train"]


def test_kinetics_mistakes_are_one_line(tmp_path, options):
    touch(tmp_path / "in", "cc.mp4")
    csv = tmp_path / "k.csv"
    made = {"dataset": "kinetics", "csv": str(csv)}
    with pytest.raises(DataError, match=r"k\.csv"):
        scan(options(tmp_path / "in", tmp_path / "out", **made))
    csv.write_text("name,id\na,b\n")
    with pytest.raises(DataError, match="youtube_id"):
        scan(options(tmp_path / "in", tmp_path / "out", **made))
    csv.write_text(KINETICS)
    with pytest.raises(DataError, match="--split tarin"):
        scan(options(tmp_path / "in", tmp_path / "out", split="tarin", **made))
    with pytest.raises(ConfigError, match="--csv"):
        options(tmp_path / "in", tmp_path / "out", dataset="kinetics")


def test_a_list_of_paths(tmp_path, options):
    touch(tmp_path, "v/1.mp4", "v/no suffix", "v/new\nline.mp4")
    listing = tmp_path / "videos.txt"
    listing.write_text(f"v/1.mp4\n\n{tmp_path}/v/no suffix\nv/1.mp4\nv/gone.mp4\n")
    found = scan(options(listing, tmp_path / "out", dataset="list"))
    assert names(found) == [f"{tmp_path}/v/no suffix", "v/1.mp4"]
    assert [name for name, _ in found.failures] == ["v/1.mp4", "v/gone.mp4"]
    listing.write_text("v/new\nline.mp4\0v/1.mp4\0")
    found = scan(options(listing, tmp_path / "out", dataset="list"))
    assert names(found) == ["v/1.mp4", "v/new\nline.mp4"]


@pytest.mark.parametrize("kind", ["missing", "empty", "folder"])
def test_a_list_that_is_none_is_one_line(tmp_path, options, kind):
    listing = tmp_path / "videos.txt"
    if kind == "empty":
        listing.touch()
    elif kind == "folder":
        listing.mkdir()
    with pytest.raises(DataError, match=r"videos\.txt"):
        scan(options(listing, tmp_path / "out", dataset="list"))
