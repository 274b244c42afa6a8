import os
import subprocess
import sys

import pytest

from coordtok.errors import DataError
from coordtok.storage import commands
from coordtok.storage.commands import CommandStore
from coordtok.storage.forward import OutOfRange
from coordtok.storage.http import HttpStore
from coordtok.storage.local import LocalStore
from coordtok.storage.objects import ObjectStore
from coordtok.storage.stores import open_store

MOST = 1 << 20


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("shards/ucf101", LocalStore),
        ("/a:b", LocalStore),
        ("http://host/shards", HttpStore),
        ("https://host/shards?token=a", HttpStore),
        ("pipe:curl https://host/{name}", CommandStore),
        ("s3://bucket/shards", ObjectStore),
        ("gs://bucket/shards", ObjectStore),
        ("hf://datasets/someone/shards", ObjectStore),
    ],
)
def test_a_location_says_how_it_is_read(location, kind):
    assert type(open_store(location)) is kind


@pytest.mark.parametrize("location", ["ftp://host/shards", "memory://shards", "file:///shards"])
def test_other_protocols_say_how_they_are_read(location):
    with pytest.raises(DataError, match=r"is neither a folder, a URL of .*'pipe:COMMAND"):
        open_store(location)


@pytest.mark.parametrize("name", ["../a", "a b", "-rf", ".hidden", "a;b", "", "a\n"])
def test_a_command_gets_plain_names_only(name):
    with pytest.raises(DataError, match="is not passed to a command"):
        CommandStore("pipe:cat {name}").read(name, 10)


def test_a_command_must_write_something(monkeypatch):
    monkeypatch.setattr(commands, "_SILENCE_S", 0.2)
    monkeypatch.setattr(commands, "_EXIT_S", 0.1)
    with pytest.raises(OSError, match="wrote nothing for"):
        CommandStore("pipe:echo {name}; sleep 3").read("a", MOST)


def test_a_file_without_end_is_not_read():
    with pytest.raises(DataError, match="is larger than the 1048576 bytes"):
        CommandStore("pipe:echo {name}; cat /dev/zero").read("a", MOST)


def test_a_local_file_is_read_anywhere(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    store = LocalStore(str(tmp_path))
    assert (store.exists("a"), store.exists("b"), store.size("a")) == (True, False, 10)
    assert store.read("a", MOST) == b"0123456789"
    buffer = bytearray(4)
    store.read_into("a", 3, memoryview(buffer))
    assert buffer == b"3456"
    with pytest.raises(OutOfRange, match="a ends before byte 12: it was cut short"):
        store.read_into("a", 8, memoryview(buffer))
    store.close()
    with pytest.raises(FileNotFoundError):
        store.read("b", MOST)


@pytest.mark.parametrize("most", [1, 2, 3, 5, 100])
def test_buffers_are_filled_one_after_the_other_however_much_comes_at_once(
    tmp_path, monkeypatch, most
):
    (tmp_path / "a").write_bytes(b"0123456789")
    read = os.preadv

    def little(descriptor, buffers, offset):
        room = memoryview(bytearray(most))
        count = min(read(descriptor, [room], offset), sum(each.nbytes for each in buffers))
        left = room[:count]
        for each in buffers:
            part, left = left[: each.nbytes], left[each.nbytes :]
            each[: part.nbytes] = part
        return count

    monkeypatch.setattr(os, "preadv", little)
    store, buffers = LocalStore(str(tmp_path)), [bytearray(size) for size in (2, 0, 3, 1)]
    store.read_into("a", 3, *map(memoryview, buffers))
    assert buffers == [b"34", b"", b"567", b"8"]
    with pytest.raises(OutOfRange, match="a ends before byte 11: it was cut short"):
        store.read_into("a", 5, *map(memoryview, buffers))


def test_no_library_is_loaded_before_it_is_needed():
    code = "import sys, coordtok.storage.stores; sys.exit(any(m in sys.modules for m in LIBRARIES))"
    libraries = ("torch", "fsspec", "webdataset", "numpy")
    done = subprocess.run([sys.executable, "-c", code.replace("LIBRARIES", repr(libraries))])
    assert done.returncode == 0
