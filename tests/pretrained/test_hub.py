"""Exports on the Hub, against a server on this machine that speaks as much of its protocol as
huggingface_hub needs to make a model, commit to it and download it."""

import base64
import functools
import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from coordtok import CoordTok, push_to_hub
from coordtok.errors import CheckpointError, ConfigError
from coordtok.pretrained.card import CONFIG, WEIGHTS
from coordtok.pretrained.fingerprint import fingerprint
from tests.support.ranks import call

COMMIT = "c" * 40


class StandIn(BaseHTTPRequestHandler):
    """One server's models: {id: {file name: content}}, in `server.models`."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.strip("/").split("/")
        if parts == ["api", "repos", "create"]:
            asked = json.loads(body)
            model = f"{asked['organization']}/{asked['name']}"
            self.server.models.setdefault(model, {})
            self._answer({"url": f"http://{self.headers['Host']}/{model}"})
        elif parts[4] == "preupload":
            files = [each["path"] for each in json.loads(body)["files"]]
            modes = {"uploadMode": "regular", "shouldIgnore": False}
            self._answer({"files": [{"path": path, **modes} for path in files]})
        else:
            model = "/".join(parts[2:4])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.models[model][line["value"]["path"]] = content
            url = f"http://{self.headers['Host']}/{model}/commit/{COMMIT}"
            self._answer({"commitUrl": url, "commitOid": COMMIT})

    def do_GET(self) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        is_api = parts[0] == "api"
        model = "/".join(parts[2:4] if is_api else parts[:2])
        files = self.server.models.get(model)
        if files is None:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif is_api and parts[4] == "tree":
            names = [{"type": "file", "path": name, "oid": "0" * 40} for name in files]
            self._answer([{**each, "size": len(files[each["path"]])} for each in names])
        elif is_api:
            siblings = [{"rfilename": name} for name in files]
            self._answer({"id": model, "sha": COMMIT, "siblings": siblings})
        else:
            content = files[parts[-1]]
            etag = f'"{hashlib.sha256(content).hexdigest()}"'
            self._send(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def _answer(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        server.models = {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_an_export_goes_to_the_hub_and_comes_back(
    hub: ThreadingHTTPServer, tiny_export: Path, tmp_path: Path
) -> None:
    call(round_trip, f"http://127.0.0.1:{hub.server_port}", tiny_export, tmp_path, ranks=1)
    files = {name: (tiny_export / name).read_bytes() for name in (CONFIG, WEIGHTS)}
    assert hub.models == {"someone/tiny": files}


def round_trip(url: str, export: str, home: str) -> None:
    """In a process that has not yet imported huggingface_hub, which looks at these then."""
    assert "huggingface_hub" not in sys.modules
    os.environ.update(HF_ENDPOINT=url, HF_HOME=home, HF_TOKEN="hf_nobody")
    os.chdir(home)
    assert push_to_hub(export, "someone/tiny") == f"{url}/someone/tiny/commit/{COMMIT}"
    model, expected = (CoordTok.from_pretrained(name) for name in ("someone/tiny", export))
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert fingerprint("someone/tiny") == fingerprint(export)
    CoordTok.from_pretrained("someone/tiny", revision=COMMIT)
    with pytest.raises(CheckpointError, match="someone/else: no such folder, and the Hub gives no"):
        CoordTok.from_pretrained("someone/else")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A working folder where huggingface_hub is not installed."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(error: type[Exception], message: str, action: Callable[[], object]) -> None:
    with pytest.raises(error, match=message) as caught:
        action()
    assert "\n" not in str(caught.value)


def test_without_the_extra_it_is_named(no_hub: Path, tiny_export: Path) -> None:
    install = r"pip install 'coordtok\[hf\]'"
    refused(CheckpointError, install, lambda: CoordTok.from_pretrained("someone/tiny"))
    refused(CheckpointError, install, lambda: push_to_hub(tiny_export, "someone/tiny"))


def test_the_hub_is_not_asked_for_a_misspelt_folder(no_hub: Path, tiny_export: Path) -> None:
    (no_hub / "exports").mkdir()
    for name in ("exports/tinny", "tiny", "a/b/c", "./tiny"):
        load = functools.partial(CoordTok.from_pretrained, name)
        refused(CheckpointError, "no such folder; name an", load)
    refused(CheckpointError, "has no config.json", lambda: push_to_hub("exports", "someone/tiny"))
    refused(
        ConfigError,
        "revision is main, but",
        lambda: CoordTok.from_pretrained(tiny_export, revision="main"),
    )
