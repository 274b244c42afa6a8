"""Servers that say and do what they like: an error of one line, soon, and little memory."""

import io
import re
from email.message import Message
from itertools import count
from pathlib import Path
from urllib.request import Request

import pytest

from coordtok.data import shards
from coordtok.data.member import UnreadableSample
from coordtok.data.shards import load_index, open_shards
from coordtok.errors import DataError
from coordtok.storage import attempts, http
from coordtok.storage.http import HttpStore
from tests.campaign.lying_server import LIES, LyingServer


@pytest.fixture(scope="module")
def folder(write_shards, tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("served") / "shards", (3, 2), 2)


@pytest.fixture
def lying(folder, monkeypatch):
    """Function (lie, ending of the names that it is about): the URL of the shards."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(http, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(attempts, "_FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(shards, "MOST_INDEX_BYTES", 1 << 22)
    servers = []

    def serve(lie: str, about: str) -> str:
        servers.append(LyingServer(folder, about, lie))
        return servers[-1].url

    yield serve
    for server in servers:
        server.close()


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_one_line_or_harmless(folder, lying, lie):
    expected = open_shards(str(folder)).reader.sample(0, 1).read("npy")
    for about in ("index.json", ".tar"):
        url = lying(lie, about)
        try:
            reader = open_shards(url, io_retries=1).reader
            assert reader.index == load_index(str(folder))
            assert reader.sample(0, 1).read("npy") == expected
        except UnreadableSample:
            assert about == ".tar"
        except DataError as error:
            message = str(error)
            assert re.fullmatch(f".*{url}.*", message), message


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ("a petabyte", "is larger than the 4194304 bytes"),
        ("an endless body", "is larger than the 4194304 bytes"),
        ("never answers", "cannot be read after 2 attempts: .*timed out"),
        ("a byte a second", "cannot be read after 2 attempts: .*timed out"),
        ("redirects to ftp", "redirects to ftp://.*, which is not http or https"),
        ("redirects to a file", "'file:///etc/passwd' is not allowed"),
    ],
)
def test_what_is_wrong_is_named(lying, lie, words):
    with pytest.raises(DataError, match=words):
        load_index(lying(lie, "index.json"), io_retries=1)


def test_bytes_must_come_at_a_pace(monkeypatch):
    """10 kB/s come, 16 are wanted after the first 1.5 s; what the reader takes does not count."""
    seconds = count()
    monkeypatch.setattr(http.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(http, "_PATIENCE_S", 1.5)
    body = io.BufferedReader(http._Paced(io.BytesIO(bytes(1 << 20))), 10_000)
    for _ in range(3):
        assert len(body.read(10_000)) == 10_000
        next(seconds)
    with pytest.raises(TimeoutError, match="only 40000 bytes came in 4 s"):
        body.read(10_000)


@pytest.mark.parametrize(
    ("url", "target", "followed"),
    [
        ("http://a/x", "http://b/x", True),
        ("http://a/x", "https://b/x", True),
        ("https://a/x", "https://b/x", True),
        ("https://a/x", "http://b/x", False),
        ("http://a/x", "ftp://b/x", False),
        ("https://a/x", "ftp://b/x", False),
        ("http://a/x", "file:///x", False),
    ],
)
def test_redirects_stay_within_http_and_never_leave_https(url, target, followed):
    redirect = http._Redirects().redirect_request
    answer = (io.BytesIO(), 302, "Found", Message(), target)
    if followed:
        assert redirect(Request(url), *answer).full_url == target
    else:
        with pytest.raises(DataError, match=f"{url} redirects to {target}, which is not http"):
            redirect(Request(url), *answer)


@pytest.mark.parametrize("url", ["http://" + "a" * 80, "http://a:99999", "http://a b"])
def test_a_url_that_no_server_can_have_is_an_error_of_input(url, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises((OSError, DataError)):
        HttpStore(url).read("index.json", 10)
