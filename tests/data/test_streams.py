"""Shards over http and from `pipe:` commands: the sequence of a local folder, in bounded memory."""

import http.server
import itertools
import os
import re
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from coordtok.data.clip_reader import ClipReader
from coordtok.data.clips import one_per_sample
from coordtok.data.index import INDEX_NAME
from coordtok.data.loader import TrainLoader
from coordtok.data.shards import load_index, open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import DataError
from coordtok.video.codec import encode_raw
from tests.support.object_store import put_in_place_of_s3

READ = VideoWindows(frames=4, height=2, width=4)
SIZES = (5, 4, 3, 6, 5, 0, 5, 5)


class Handler(http.server.SimpleHTTPRequestHandler):
    """A static file server; with `ranges` it serves parts of files, and it can fail on purpose."""

    def __init__(self, *args, server_state, **kwargs):
        self.state = server_state
        super().__init__(*args, **kwargs)

    def do_GET(self):
        state = self.state
        state.requests.append((self.path, self.headers.get("Range")))
        if state.answers:
            answer = state.answers.pop(0)
            if answer is not None:
                return self.send_error(answer)
        if not Path(self.translate_path(self.path)).is_file():
            return self.send_error(404)
        content = Path(self.translate_path(self.path)).read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if state.ranges and wanted is not None:
            start, last = int(wanted[1]), min(int(wanted[2]), len(content) - 1)
            if start >= len(content):
                return self.send_error(416)
            part = content[start : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        else:
            part = content
            self.send_response(200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: len(part) // 2] if state.cut_short.pop("next", False) else part)
        state.sent += len(part)

    def log_message(self, *args):
        pass


class Server:
    def __init__(self, folder: Path, ranges: bool) -> None:
        self.ranges = ranges
        self.requests: list[tuple[str, str | None]] = []
        self.answers: list[int | None] = []
        self.cut_short: dict[str, bool] = {}
        self.sent = 0
        handler = partial(Handler, server_state=self, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    servers = []

    def start(folder: Path, ranges: bool = True) -> Server:
        servers.append(Server(folder, ranges))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def folder(write_shards, tmp_path) -> Path:
    damaged = {"damaged": ["s001-002", "s003-000"], "damaged_headers": ["s004-004", "s002-001"]}
    return write_shards(tmp_path / "shards", SIZES, 2, foreign=True, **damaged)


@pytest.fixture(params=["http with ranges", "http without ranges", "pipe", "object store"])
def remote(request, folder, serve, monkeypatch) -> str:
    if request.param == "pipe":
        return f"pipe:cat {folder}/{{name}}"
    if request.param == "object store":
        return put_in_place_of_s3(monkeypatch, folder).url
    return serve(folder, ranges=request.param == "http with ranges").url


def loader(location: str, state=None, workers=0, shuffle_block=3, **options) -> TrainLoader:
    return TrainLoader(
        [open_shards(location, **options)],
        READ,
        seed=0,
        rank=0,
        world_size=1,
        micro_batch=2,
        workers=workers,
        prefetch=2,
        shuffle_block=shuffle_block,
        state=state,
    )


def take(batches, steps):
    """What the contract is about, without the location that is named with a skipped sample."""
    return [
        (
            batch.ids,
            batch.data["video"].tolist(),
            batch.data["label"].tolist(),
            [sample[1:] for sample in batch.skipped],
            state,
        )
        for batch, state in itertools.islice(batches, steps)
    ]


def test_a_stream_gives_the_sequence_of_a_folder(folder, remote):
    expected = take(loader(str(folder)), 34)
    assert sum(len(batch[3]) for batch in expected) > 4
    assert take(loader(remote), 34) == expected


def test_a_stream_resumes_anywhere(folder, remote):
    expected = take(loader(str(folder)), 34)
    for done in range(1, 33, 3):
        assert take(loader(remote, expected[done - 1][-1]), 2) == expected[done : done + 2]


def test_a_stream_is_read_by_workers(folder, remote):
    assert take(loader(remote, workers=2), 20) == take(loader(str(folder)), 20)


def test_a_stream_is_evaluated(folder, remote):
    def batches(location):
        opened = open_shards(location)
        clips = one_per_sample(opened.index, READ.frames, seed=0)
        reader = ClipReader(opened, clips, READ, rank=1, world_size=2, batch=2)
        return [[(b.ids, b.data["video"].tolist(), b.numbers) for b in reader] for _ in range(2)]

    first, second = batches(remote)
    assert first == second == batches(str(folder))[0]


def test_ranges_make_a_resume_a_jump(write_shards, tmp_path, serve):
    folder = write_shards(tmp_path, (60, 60), 2, frames=60)
    state = take(loader(str(folder)), 50)[-1][-1]
    server = serve(folder)
    assert take(loader(server.url, state), 1) == take(loader(str(folder), state), 1)
    shards = [wanted for path, wanted in server.requests if path.endswith(".tar")]
    starts = [int(re.match(r"bytes=(\d+)", wanted)[1]) for wanted in shards]
    total = sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert len(starts) == 2  # one for each lane
    assert min(starts) > total / 2 / 2
    assert server.sent < total / 10


def test_ranges_of_objects_make_a_resume_a_jump(write_shards, tmp_path, monkeypatch):
    folder = write_shards(tmp_path, (60, 60), 2, frames=60)
    state = take(loader(str(folder)), 50)[-1][-1]
    bucket = put_in_place_of_s3(monkeypatch, folder)
    assert take(loader(bucket.url, state), 1) == take(loader(str(folder), state), 1)
    shards = [request for request in bucket.requests if request[0].endswith(".tar")]
    total = sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert len(shards) == 2  # one for each lane
    assert min(start for _, start, _ in shards) > total / 2 / 2
    assert sum(stop - start for _, start, stop in shards) < total / 10


def test_passing_failures_of_an_object_store_do_not_change_the_order(folder, monkeypatch):
    expected = take(loader(str(folder)), 12)
    bucket = put_in_place_of_s3(monkeypatch, folder)
    batches = iter(loader(bucket.url))
    found = []
    for step in range(12):
        bucket.failures[:] = [OSError("slow down"), KeyError("token")] if step % 2 else []
        found += take(batches, 1)
    assert found == expected


def test_a_truncated_object_is_an_error(folder, monkeypatch):
    bucket = put_in_place_of_s3(monkeypatch, folder)
    batches = iter(loader(bucket.url))
    for path in folder.glob("*.tar"):
        os.truncate(path, path.stat().st_size - 1024)
    with pytest.raises(DataError, match=r"has \d+ bytes where the index has \d+: it is truncated"):
        take(batches, 20)


def test_a_lane_holds_at_most_one_block(write_shards, tmp_path):
    """However large a shard: all of it passes through, and no more than a block is kept."""
    frames, block, sizes = 40, 4, (50, 30)
    folder = write_shards(tmp_path, sizes, 2, frames=frames)
    opened = open_shards(f"pipe:cat {folder}/{{name}}")
    sample_bytes = sum(size for _, size in opened.index.shards[0].samples[0].files.values())
    batches = TrainLoader(
        [opened], READ, seed=0, rank=0, world_size=1, micro_batch=1, workers=0, prefetch=1,
        shuffle_block=block,
    )  # fmt: skip
    held = []
    for _ in itertools.islice(batches, 160):
        held.append(opened.reader.held_bytes)
    # The sample just handed out is no longer held.
    assert max(held) == 2 * (block - 1) * sample_bytes
    assert 0 in held
    assert max(held) < sum(path.stat().st_size for path in folder.glob("*.tar")) / 8


def test_nothing_is_decoded_while_skipping_to_a_position(folder, monkeypatch):
    state = take(loader(str(folder)), 8)[-1][-1]
    expected = take(loader(str(folder), state), 1)
    read = []
    monkeypatch.setattr(
        "coordtok.data.video_reader.VideoWindows.__call__",
        lambda self, sample, start, whole=VideoWindows.__call__: (
            read.append(sample.entry.key),
            whole(self, sample, start),
        )[1],
    )
    assert take(loader(f"pipe:cat {folder}/{{name}}", state), 1) == expected
    assert len(read) == 2 + len(expected[0][3])


def test_passing_failures_of_a_server_do_not_change_the_order(folder, serve):
    expected = take(loader(str(folder)), 12)
    server = serve(folder)
    batches = iter(loader(server.url))
    found = []
    for step in range(12):
        server.answers = [503, 500] if step % 2 else [429]
        server.cut_short = {"next": True} if step % 3 == 0 else {}
        found += take(batches, 1)
    assert found == expected


def test_a_server_that_stays_broken_is_named(folder, serve):
    server = serve(folder)
    batches = iter(loader(server.url, io_retries=2))
    server.answers = [503] * 3
    with pytest.raises(DataError, match=rf"{server.url}/train-.*tar cannot be read after 3 att"):
        next(batches)
    assert len(server.requests) == 1 + 3


def test_what_a_server_refuses_is_not_tried_again(folder, serve):
    server = serve(folder)
    batches = iter(loader(server.url))
    server.answers = [403]
    with pytest.raises(DataError, match=rf"{server.url}/train-\S+ answers 403 .*check the URL"):
        next(batches)


def test_a_server_without_an_index_or_without_a_listener(folder, serve):
    server = serve(folder)
    (folder / INDEX_NAME).unlink()
    with pytest.raises(DataError, match=r"/index.json answers 404"):
        load_index(server.url)
    with pytest.raises(DataError, match=r"cannot be read after 2 attempts: .*refused"):
        load_index("http://127.0.0.1:9", io_retries=1)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_truncated_shard_on_a_server_is_an_error(folder, serve, ranges):
    server = serve(folder, ranges)
    batches = iter(loader(server.url))
    for path in folder.glob("*.tar"):
        os.truncate(path, path.stat().st_size - 1024)
    with pytest.raises(DataError, match=r"has \d+ bytes where the index has \d+: it is truncated"):
        take(batches, 20)


def test_an_index_cut_short_on_its_way_is_read_again(folder, serve):
    server = serve(folder)
    server.cut_short = {"next": True}
    assert load_index(server.url) == load_index(str(folder))
    assert len(server.requests) == 2


def test_what_is_no_url_is_one_line():
    with pytest.raises(DataError, match=r"http://\[x is not a URL"):
        load_index("http://[x")


def test_a_query_in_a_url_stays_behind_the_path(folder, serve):
    server = serve(folder)
    load_index(server.url + "/?token=a/b")
    assert server.requests[0][0] == "/index.json?token=a/b"


def test_a_command_that_fails_now_and_then_does_not_change_the_order(folder, tmp_path):
    expected = take(loader(str(folder)), 20)
    calls = tmp_path / "calls"
    # Each second call breaks off in the middle, and says so or not.
    command = (
        f"echo >> {calls}; n=$(wc -l < {calls}); "
        f"if [ $((n % 4)) = 1 ]; then head -c 3000 {folder}/{{name}}; exit 7; "
        f"elif [ $((n % 4)) = 3 ]; then head -c 3000 {folder}/{{name}}; "
        f"else cat {folder}/{{name}}; fi"
    )
    calls.write_text("\n")  # the index, read first, is whole
    assert take(loader(f"pipe:{command}"), 20) == expected
    assert len(calls.read_text()) > 10


@pytest.mark.parametrize("end", ["; exit 3", ""])
def test_a_command_that_always_fails_is_named(folder, end):
    command = f"pipe:case {{name}} in *.json) cat {folder}/{{name}};; *) true {end};; esac"
    with pytest.raises(DataError, match=r"pipe:case train-.*cannot be read after 4 at") as err:
        take(loader(command), 1)
    assert "\n" not in str(err.value)


def test_a_command_without_an_index(tmp_path):
    with pytest.raises(DataError, match=r"index.json.* cannot be read after 2 .*failed with exit"):
        load_index(f"pipe:cat {tmp_path}/nothing/{{name}} 2>/dev/null", io_retries=1)


def test_a_command_must_say_where_the_name_goes(folder):
    with pytest.raises(DataError, match=r"write \{name\} in the command"):
        load_index(f"pipe:cat {folder}/index.json")


def test_braces_and_quotes_of_a_command_are_left_alone(folder):
    command = f"pipe:awk 'BEGIN {{ exit }}'; X={folder}; cat \"${{X}}/{{name}}\""
    assert load_index(command) == load_index(str(folder))


def test_other_schemes_say_how_they_are_read():
    with pytest.raises(DataError, match=r"ftp://host/shards is neither.*'pipe:COMMAND"):
        load_index("ftp://host/shards")


@pytest.mark.parametrize("name", ["pipe:touch {}.tar", "$(touch {}).tar", "a;touch {};.tar"])
def test_names_in_an_index_are_never_executed(folder, tmp_path, name):
    target = tmp_path / "executed"
    index = folder / INDEX_NAME
    index.write_text(index.read_text().replace("train-000000.tar", name.format(target)))
    for location in (str(folder), f"pipe:cat {folder}/{{name}}"):
        with pytest.raises(DataError, match="shard name"):
            load_index(location)
    assert not target.exists()


def test_a_command_in_a_key_is_never_executed(write_members, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = encode_raw(np.zeros((9, 2, 4, 3), np.uint8))
    keys = ["pipe:touch executed", "$(touch executed)", "`touch executed`"]
    folder = write_members(tmp_path / "shards", {f"{key}.npy": content for key in keys})
    for location in (str(folder), f"pipe:cat {folder}/{{name}}"):
        ids = {sample.key for batch in take(loader(location), 3) for sample in batch[0]}
        assert ids == set(keys)
    assert not list(tmp_path.rglob("executed"))
