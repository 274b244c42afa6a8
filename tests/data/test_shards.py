import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from coordtok.data.index import INDEX_NAME
from coordtok.data.member import UnreadableSample, _is_plain
from coordtok.data.shards import load_index, open_shards
from coordtok.errors import DataError
from coordtok.video.codec import encode_raw

FIX = "data_prep.verify_shards .*--write-index"


@pytest.fixture
def folder(write_shards, tmp_path) -> Path:
    return write_shards(tmp_path / "shards", (3, 4), 2, foreign=True)


def one_line_error(location) -> str:
    with pytest.raises(DataError) as error:
        load_index(str(location))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_of_a_sample(folder):
    reader = open_shards(str(folder)).reader
    with tarfile.open(folder / "train-000001.tar") as tar:
        content = tar.extractfile("s001-002.npy").read()
    sample = reader.sample(1, 2)
    assert sample.entry.key == "s001-002"
    assert sample.read("npy") == content
    assert sample.read("npy", 100) == content[100:]
    assert sample.read("npy", 100, 20) == content[100:120]
    buffer = bytearray(30)
    sample.read_into("npy", 7, memoryview(buffer))
    assert buffer == content[7:37]
    assert sample.read("json") == b'{"class": 1}'
    with pytest.raises(UnreadableSample, match=r"\.npy has \d+ bytes, fewer than"):
        sample.read("npy", len(content) - 5, 6)
    reader.close()
    assert sample.read("npy") == content


def test_few_files_stay_open(write_shards, tmp_path, monkeypatch):
    monkeypatch.setattr("coordtok.storage.local._OPEN_FILES", 3)
    folder = write_shards(tmp_path, (1,) * 12, 2)
    reader = open_shards(str(folder)).reader
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        for shard in range(12):
            assert reader.sample(shard, 0).read("json") == b'{"class": %d}' % shard
    assert len(os.listdir("/proc/self/fd")) == before + 3


def test_a_missing_folder_says_how_to_build_one(tmp_path):
    error = one_line_error(tmp_path / "none")
    assert f"{tmp_path}/none does not exist" in error
    assert "data_prep.build_shards" in error


def test_a_folder_of_folders_of_shards_names_one(folder, tmp_path):
    folder.rename(tmp_path / "train")
    assert f"name a folder in it that does: {tmp_path}/train" in one_line_error(tmp_path)


def test_an_empty_folder_and_a_file(tmp_path):
    assert "holds no shards" in one_line_error(tmp_path)
    (tmp_path / "file").touch()
    assert "is a file" in one_line_error(tmp_path / "file")


def test_shards_without_an_index_say_how_to_write_one(folder):
    (folder / INDEX_NAME).unlink()
    assert f"verify_shards {folder} --write-index" in one_line_error(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"version": 1}'])
def test_an_unreadable_index(folder, content):
    (folder / INDEX_NAME).write_bytes(content)
    error = one_line_error(folder)
    assert str(folder / INDEX_NAME) in error
    assert "--write-index" in error


def test_an_index_without_samples(write_shards, tmp_path):
    folder = write_shards(tmp_path, (0, 0), 2)
    assert "lists no samples" in one_line_error(folder)


def test_a_missing_shard(folder):
    (folder / "train-000001.tar").unlink()
    assert "train-000001.tar is in the index but cannot be opened" in one_line_error(folder)


@pytest.mark.parametrize(("change", "state"), [(-512, "is truncated"), (512, "is another file")])
def test_a_shard_of_another_size(folder, change, state):
    path = folder / "train-000001.tar"
    size = path.stat().st_size
    os.truncate(path, size + change)
    error = one_line_error(folder)
    assert f"{path} {state}: it has {size + change} bytes, its index says {size}" in error


def test_an_index_of_other_shards_of_the_same_size(write_shards, folder, tmp_path):
    """The same names and sizes: only what the headers say gives it away."""
    other = write_shards(tmp_path / "other", (3, 4), 2, foreign=True)
    first, second = folder / "train-000000.tar", other / "train-000000.tar"
    content = first.read_bytes().replace(b"s000-", b"x000-")
    with tarfile.open(second, "w", format=tarfile.PAX_FORMAT) as tar, tarfile.open(first) as old:
        for member in old:
            file = old.extractfile(member)
            member.name = member.name.replace("s000-", "x000-")
            tar.addfile(member, file)
    assert second.stat().st_size == len(content) == first.stat().st_size
    assert "holds 'x000-000.npy'" in one_line_error(other)


def test_offsets_that_point_at_no_member(folder):
    for path in folder.glob("*.tar"):
        content = path.read_bytes()
        path.write_bytes(content[300:] + content[:300])
    error = one_line_error(folder)
    assert "none of the 7 samples looked at is where index.json says" in error
    assert "--write-index" in error


def test_one_damaged_header_does_not_keep_the_shards_from_being_opened(write_shards, tmp_path):
    folder = write_shards(tmp_path, (3, 1), 2, damaged_headers=["s000-000", "s001-000"])
    reader = open_shards(str(folder)).reader
    assert reader.sample(0, 1).read("npy")
    for shard in (0, 1):
        with pytest.raises(UnreadableSample, match=r"tar header of \.npy is damaged"):
            reader.sample(shard, 0).read("npy")


def test_a_header_with_any_bit_flipped_is_no_plain_one():
    """Of each, `tarfile` is asked; it takes some of them, a sum may be written in other ways."""
    member = tarfile.TarInfo("folder/a.b.npy")
    member.size = 12345
    header = member.tobuf(tarfile.USTAR_FORMAT)
    assert _is_plain(header, "folder/a.b.npy", 12345)
    assert not _is_plain(header, "folder/a.b.npy", 12346)
    assert not _is_plain(header, "folder/a.b.np", 12345)
    apart = tarfile.TarInfo("other/" + "a" * 96 + ".npy")
    assert not _is_plain(apart.tobuf(tarfile.USTAR_FORMAT), "a" * 96 + ".npy", 0)
    for bit in range(8 * len(header)):
        flipped = bytearray(header)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not _is_plain(flipped, "folder/a.b.npy", 12345)


def test_a_header_of_another_sample_is_fatal(folder):
    reader = open_shards(str(folder)).reader
    path = folder / "train-000000.tar"
    path.write_bytes((folder / "train-000001.tar").read_bytes()[: path.stat().st_size])
    with pytest.raises(DataError, match=f"holds 's001-001.npy'.*has 's000-001.npy'.*{FIX}"):
        reader.sample(0, 1).read("npy")


def test_a_shard_cut_short_while_in_use_is_fatal(folder):
    reader = open_shards(str(folder)).reader
    os.truncate(folder / "train-000000.tar", 2000)
    with pytest.raises(DataError, match=r"train-000000.tar ends before byte .*copy it again"):
        reader.sample(0, 2).read("npy")


def test_a_failing_disk_is_tried_again_and_then_fatal(folder, monkeypatch):
    reader = open_shards(str(folder), io_retries=2).reader
    expected = reader.sample(0, 1).read("npy")
    failures = []
    read = os.preadv

    def flaky(*args):
        if failures:
            raise failures.pop()
        return read(*args)

    monkeypatch.setattr(os, "preadv", flaky)
    failures[:] = [OSError(5, "Input/output error"), OSError(116, "Stale file handle")]
    assert reader.sample(0, 1).read("npy") == expected
    failures[:] = [OSError(5, "Input/output error")] * 3
    with pytest.raises(DataError, match=r"tar cannot be read after 3 attempts: .*Input/output err"):
        reader.sample(0, 1).read("npy")


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_of_any_kind_are_found(write_members, tmp_path, tar_format):
    """Long and non-ASCII ones are cut off or replaced in a member's plain header."""
    content = encode_raw(np.zeros((2, 2, 4, 3), np.uint8))
    keys = ["k" * 150, "видео é", "folder/key", "./dotted", 'a "b" c\nd']
    folder = write_members(tmp_path, {f"{key}.npy": content for key in keys}, tar_format)
    opened = open_shards(str(folder))
    assert [sample.key for sample in opened.index.shards[0].samples] == keys
    for sample in range(len(keys)):
        assert opened.reader.sample(0, sample).read("npy") == content
