import io
import json
import shutil
import tarfile
from fractions import Fraction

import numpy as np
import pytest

from coordtok.data.index import CHECKSUMS, ShardIndex, even_lanes, unevenness
from coordtok.data.tars import write_tar
from coordtok.video.codec import encode_h264, encode_raw
from data_prep.build_shards import build
from data_prep.options import RunOptions
from data_prep.verify_shards import main
from tests.support.damaged_shards import forge_index


@pytest.fixture(scope="module")
def whole(tmp_path_factory, some_videos, options):
    folder = tmp_path_factory.mktemp("whole") / "out"
    made = options(some_videos, folder, lanes=2, samples_per_shard=2)
    build(made, RunOptions(2, "local", None))
    return folder


@pytest.fixture
def shards(tmp_path, whole):
    return shutil.copytree(whole, tmp_path / "shards")


def verify(capsys, *arguments):
    """(exit code, lines that name a problem, all output)."""
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert "Traceback" not in said.err
    return code, [line for line in lines if line.startswith("problem: ")], said.out + said.err


@pytest.mark.parametrize("decode", ["none", "one", "all"])
def test_whole_shards_pass(capsys, whole, decode):
    code, problems, said = verify(capsys, whole, "--decode", decode)
    assert (code, problems) == (0, [])
    assert "4 shards, 8 samples, 111 frames, 2 lanes: all as indexed" in said


def cut(folder):
    path = folder / "shard-000001.tar"
    path.write_bytes(path.read_bytes()[:3000])


def flip(folder):
    path = folder / "shard-000001.tar"
    data = bytearray(path.read_bytes())
    data[1200] ^= 255
    path.write_bytes(data)


def remove(folder):
    (folder / "shard-000001.tar").unlink()


def add_foreign_member(folder):
    with tarfile.open(folder / "shard-000001.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("README"), io.BytesIO())


def add_foreign_shard(folder):
    shutil.copy(folder / "shard-000001.tar", folder / "other.tar")


def swap(folder):
    shutil.copy(folder / "shard-000000.tar", folder / "shard-000001.tar")


def lie_about_frames(folder):
    forge_index(folder, lambda stored: stored["shards"][1]["samples"][0].__setitem__(1, 50))


def lie_about_places(folder):
    def change(stored):
        stored["shards"][1]["samples"][0][2]["mp4"][0] += 512

    forge_index(folder, change)


def lie_about_size(folder):
    forge_index(folder, lambda stored: stored["video"].__setitem__("height", 64))


def lose_index(folder):
    (folder / "index.json").unlink()


def break_index(folder):
    (folder / "index.json").write_text("{")


DAMAGES = [
    (cut, "shard-000001.tar"),
    (flip, "sha256"),
    (flip, ": the checksum of its .mp4 differs"),
    (remove, "shard-000001.tar is missing"),
    (add_foreign_member, "README"),
    (add_foreign_shard, "other.tar is not in the index"),
    (swap, "shard-000001.tar"),
    (lie_about_frames, "not as the index says"),
    (lie_about_places, "not as the index says"),
    (lie_about_size, "its frames are 16 x 16, not 64 x 16"),
    (lose_index, "--write-index"),
    (break_index, "--write-index"),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGES)
def test_every_damage_is_told_in_a_line(capsys, shards, damage, words):
    damage(shards)
    code, problems, _ = verify(capsys, shards)
    assert code == 1
    assert problems
    assert any(words in line for line in problems)


def test_an_index_of_before_is_told_and_made_anew_with_checksums(capsys, shards):
    whole = (shards / "index.json").read_text()
    stored = json.loads(whole)
    del stored[CHECKSUMS]
    (shards / "index.json").write_text(json.dumps(stored))
    code, _, said = verify(capsys, shards)
    assert code == 0
    assert "note: index.json is of before it held checksums" in said
    _, _, said = verify(capsys, shards, "--write-index", "--clip-frames", "8", "--lanes", "2")
    assert "note:" not in said
    assert (
        json.loads((shards / "index.json").read_text())[CHECKSUMS] == json.loads(whole)[CHECKSUMS]
    )


def test_wrong_usage_is_another_code(capsys, tmp_path, shards):
    for arguments in (
        [tmp_path / "nowhere"],
        [shards, "--decode", "some"],
        [shards, "--write-index", "--clip-frames", "0"],
        [shards, "--write-index", "--lanes", "99"],
    ):
        code, _, said = verify(capsys, *arguments)
        assert code == 2
        assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1


def test_an_index_made_anew_says_the_same(capsys, shards):
    before = ShardIndex.from_json((shards / "index.json").read_text(), "")
    code, problems, _ = verify(capsys, shards, "--write-index")
    assert (code, problems) == (0, [])
    assert ShardIndex.from_json((shards / "index.json").read_text(), "") == before
    (shards / "index.json").unlink()
    verify(capsys, shards, "--write-index", "--clip-frames", "8", "--lanes", "2")
    assert ShardIndex.from_json((shards / "index.json").read_text(), "") == before


def foreign_shard(path, count, codec="mp4"):
    frames = np.random.default_rng(count).integers(0, 256, (9, 16, 24, 3)).astype(np.uint8)
    data = encode_raw(frames)
    if codec == "mp4":
        data = encode_h264(frames, crf=20, gop=4, pixel_format="yuv420p", fps=Fraction(24))
    members = [("README.txt", b"made elsewhere")]
    for number in range(count):
        members += [(f"some/{number}.{codec}", data), (f"some/{number}.cls", b"1")]
    with open(path, "wb") as file:
        write_tar(file, members)


@pytest.mark.parametrize("codec", ["mp4", "npy"])
def test_shards_made_elsewhere_get_an_index(capsys, tmp_path, codec):
    for number in range(3):
        foreign_shard(tmp_path / f"x{number}.tar", 4, codec)
    code, problems, said = verify(capsys, tmp_path, "--write-index", "--decode", "all")
    assert code == 1  # the README members are told, each in a line
    assert len(problems) == 3
    index = ShardIndex.from_json((tmp_path / "index.json").read_text(), "")
    assert (index.lanes, index.samples) == (3, 12)
    assert (index.video.height, index.video.width) == (16, 24)
    told = {"name": "h264", "crf": 20.0, "gop": 4, "pixel_format": "yuv420p"}
    assert index.codec == {"mp4": told, "npy": {"name": "raw"}}[codec]
    assert "warning" not in said


def test_uneven_lanes_are_warned_about(capsys, tmp_path):
    foreign_shard(tmp_path / "a.tar", 8)
    foreign_shard(tmp_path / "b.tar", 2)
    _, _, said = verify(capsys, tmp_path, "--write-index", "--lanes", "2")
    assert "warning: lanes differ by 75%" in said
    assert "--write-index --lanes 1 would be even" in said
    _, _, said = verify(capsys, tmp_path, "--write-index", "--lanes", "1")
    assert "warning" not in said


@pytest.mark.parametrize("kind", ["none", "empty", "name", "two keys"])
def test_what_cannot_be_indexed_is_one_line(capsys, tmp_path, kind):
    if kind == "empty":
        foreign_shard(tmp_path / "a.tar", 0)
    elif kind == "name":
        foreign_shard(tmp_path / "a b.tar", 1)
    elif kind == "two keys":
        with open(tmp_path / "a.tar", "wb") as file:
            write_tar(file, [("a.mp4", b""), ("b.mp4", b""), ("a.mp4", b"")])
    code, _, said = verify(capsys, tmp_path, "--write-index")
    assert code == 2
    assert len([line for line in said.splitlines() if line.startswith("error: ")]) == 1


@pytest.mark.parametrize(
    ("counts", "lanes"), [([5] * 96, 96), ([5] * 100, 8), ([5] * 48, 48), ([9, 1], 1), ([5] * 7, 1)]
)
def test_lanes_chosen_are_even(counts, lanes):
    chosen = even_lanes(counts)
    assert chosen == lanes
    assert unevenness(counts, chosen) <= 0.1
