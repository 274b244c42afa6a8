import os
import time
from pathlib import Path

import pytest

from coordtok.errors import DataError
from coordtok.storage.forward import OutOfRange
from coordtok.storage.objects import EXTRAS, ObjectStore
from tests.support.object_store import StandIn, put_in_place_of_s3

CONTENT = bytes(range(256)) * 40
MOST = 1 << 20


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    (tmp_path / "a.tar").write_bytes(CONTENT)
    (tmp_path / "empty").touch()
    return put_in_place_of_s3(monkeypatch, tmp_path)


def test_a_file_is_read_in_the_ranges_that_are_wanted(bucket, monkeypatch):
    monkeypatch.setattr("coordtok.storage.objects._PIECE", 1000)
    store = ObjectStore(bucket.url + "/")
    stream = store.open("a.tar", 500, 3000)
    assert stream.total == len(CONTENT)
    stream.skip_to(600)
    assert stream.read(1500) == CONTENT[600:2100]
    assert bucket.requests == [("a.tar", 500, 1500), ("a.tar", 1500, 2500)]
    assert stream.read(900) == CONTENT[2100:3000]
    with pytest.raises(OSError, match="ended after 3000 bytes"):
        stream.read(1)
    assert store.read("a.tar", MOST) == CONTENT
    assert store.read("empty", MOST) == b""


def test_what_is_not_there_or_shorter_or_refused_stays_so(bucket):
    store = ObjectStore(bucket.url)
    with pytest.raises(DataError, match=r"s3://bucket/shards/b.tar cannot be read .*check the URL"):
        store.read("b.tar", MOST)
    with pytest.raises(OutOfRange, match=r"a.tar ends before byte 20000"):
        store.open("a.tar", 0, 20000)
    bucket.failures.append(PermissionError("Forbidden"))
    with pytest.raises(DataError, match=r"a.tar cannot be read \(Forbidden\); check the URL and"):
        store.read("a.tar", MOST)


def test_whatever_a_library_raises_may_pass(bucket):
    store = ObjectStore(bucket.url)
    bucket.failures += [KeyError("Contents"), ConnectionResetError("reset")]
    with pytest.raises(OSError, match="KeyError: 'Contents'"):
        store.read("a.tar", MOST)
    with pytest.raises(ConnectionResetError):
        store.read("a.tar", MOST)
    assert store.read("a.tar", MOST) == CONTENT


@pytest.mark.parametrize("answer", [CONTENT, CONTENT[:99], b""])
def test_an_answer_of_another_length_is_not_taken(bucket, monkeypatch, answer):
    monkeypatch.setattr(bucket, "cat_file", lambda *args, **kwargs: answer)
    with pytest.raises(OSError, match=rf"{len(answer)} bytes came of the 100 from 50 on"):
        ObjectStore(bucket.url).open("a.tar", 50, 150).read(100)


def test_a_size_that_is_none_is_an_error(bucket, monkeypatch):
    monkeypatch.setattr(bucket, "info", lambda *args, **kwargs: {"size": None})
    with pytest.raises(OSError, match="TypeError"):
        ObjectStore(bucket.url).read("a.tar", MOST)


def test_a_request_has_a_time_limit(bucket, monkeypatch):
    monkeypatch.setattr("coordtok.storage.objects._TIMEOUT_S", 0.2)
    monkeypatch.setattr(bucket, "cat_file", lambda *args, **kwargs: time.sleep(20))
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"no answer within 0\.2 s"):
        ObjectStore(bucket.url).read("a.tar", MOST)
    assert time.monotonic() - begun < 10


def test_a_process_connects_on_its_own_after_a_fork(bucket):
    store = ObjectStore(bucket.url)
    assert store.read("a.tar", MOST) == CONTENT
    child = os.fork()
    if not child:
        os._exit(0 if store.read("a.tar", MOST) == CONTENT else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("protocol", EXTRAS)
def test_a_missing_library_is_named(protocol, monkeypatch):
    def missing(*args, **kwargs):
        raise ImportError("Install it")

    monkeypatch.setattr("fsspec.filesystem", missing)
    with pytest.raises(DataError, match=rf"pip install 'coordtok\[{EXTRAS[protocol]}\]'"):
        ObjectStore(f"{protocol}://bucket/shards").read("a.tar", MOST)
