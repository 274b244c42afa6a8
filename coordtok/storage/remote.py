"""Shards that lie elsewhere: below an http(s) URL, or behind a command that the user typed.

Either gives a shard as a stream that is read forwards only. Over http the wanted bytes are asked
for by range, so that a resume is a jump; a server that knows no ranges sends the shard from its
start, and so does a command.
"""

import re
import shlex
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from subprocess import TimeoutExpired
from typing import Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from coordtok.data.index import INDEX_NAME, SHARD_NAME, WRITE_INDEX, ShardEntry
from coordtok.errors import DataError

PIPE = "pipe:"
_CHUNK = 1 << 20
_TIMEOUT_S = 60.0
_PIPE_EXIT_S = 5.0
_PASSING_HTTP_ERRORS = (408, 425, 429, 500, 502, 503, 504)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class ForwardStream:
    """Bytes that come in order; `position` is the offset of the next one in the shard."""

    def __init__(
        self, raw: Readable, close: Callable[[], None], position: int = 0, stop: int | None = None
    ) -> None:
        self._raw, self.close = raw, close
        self.position = position
        self.stop = stop
        """Where it ends before the shard does."""

    def reaches(self, start: int, stop: int) -> bool:
        """Whether the bytes from `start` to `stop` are still to come."""
        return self.position <= start and (self.stop is None or stop <= self.stop)

    def skip_to(self, offset: int) -> None:
        """Read past everything before `offset`."""
        while self.position < offset:
            self.read(min(_CHUNK, offset - self.position))

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; OSError where the stream breaks or ends too early."""
        parts = []
        missing = size
        while missing:
            part = self._part(missing)
            if not part:
                raise OSError(f"it ended after {self.position} bytes")
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_all(self) -> bytes:
        """Everything to the end."""
        return b"".join(iter(lambda: self._part(_CHUNK), b""))

    def _part(self, size: int) -> bytes:
        try:
            part = self._raw.read(size)
        except HTTPException as error:
            raise OSError(f"the connection broke: {error!r}") from None
        self.position += len(part)
        return part


class HttpSource:
    """Shards below an http(s) URL."""

    def __init__(self, url: str) -> None:
        try:
            self._parts = urlsplit(url)
        except ValueError as error:
            raise DataError(f"{url} is not a URL ({error}); correct data.shards") from None

    def describe(self, name: str) -> str:
        path = f"{self._parts.path.rstrip('/')}/{name}"
        return urlunsplit(self._parts._replace(path=path))

    def open(self, shard: ShardEntry, start: int, stop: int) -> ForwardStream:
        """The bytes [start, stop) of a shard, or all of it where the server knows no ranges."""
        url = self.describe(shard.name)
        response = _request(url, {"Range": f"bytes={start}-{stop - 1}"})
        begin, total = _served_range(response)
        if total not in (None, shard.bytes):
            response.close()
            raise DataError(
                f"{url} has {total} bytes where the index has {shard.bytes}: it is truncated or "
                f"another file; copy it again, or {WRITE_INDEX}"
            )
        if begin not in (None, start):
            response.close()
            raise OSError(f"the server sent bytes from {begin} on, not from {start}")
        if begin is None:
            return ForwardStream(response, response.close)
        return ForwardStream(response, response.close, start, stop)

    def read_index(self) -> bytes:
        """The bytes of `index.json`."""
        with _request(self.describe(INDEX_NAME), {}) as response:
            _, total = _served_range(response)
            stream = ForwardStream(response, response.close)
            return stream.read_all() if total is None else stream.read(total)


class PipeSource:
    """Shards that a command typed by the user writes to its output, `{name}` standing for one.

    It runs through webdataset's `gopen`, as webdataset's own `pipe:` URLs do. What replaces
    `{name}` comes from an index, so it must look like a shard's name, and is quoted for the shell.
    """

    def __init__(self, location: str) -> None:
        if "{name}" not in location:
            raise DataError(
                f"{location!r} does not say where the shard's name goes; write {{name}} in the "
                "command, as in 'pipe:aws s3 cp s3://bucket/shards/{name} -'"
            )
        self._location = location

    def describe(self, name: str) -> str:
        if name != INDEX_NAME and not SHARD_NAME.fullmatch(name):
            raise DataError(f"{name!r} is no name of a shard; it is not passed to a command")
        return self._location.replace("{name}", shlex.quote(name))

    def open(self, shard: ShardEntry, start: int, stop: int) -> ForwardStream:
        """A shard from its first byte."""
        return self._run(shard.name)

    def read_index(self) -> bytes:
        """The bytes of `index.json`."""
        stream = self._run(INDEX_NAME)
        try:
            text = stream.read_all()
            if not text:
                raise OSError("the command wrote nothing")
            return text
        finally:
            stream.close()

    def _run(self, name: str) -> ForwardStream:
        command = _Command(self.describe(name))
        return ForwardStream(command, command.close)


class _Command:
    """A running `pipe:` command."""

    def __init__(self, url: str) -> None:
        # Imported here: it costs more than a second and brings torch.
        from webdataset.gopen import gopen, set_options

        self._pipe = gopen(url)
        set_options(self._pipe, timeout=_PIPE_EXIT_S)

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end; OSError where the command failed."""
        try:
            content = self._pipe.read(size)
            if not content:
                self._pipe.proc.wait(_PIPE_EXIT_S)
                self._pipe.check_status()
        except (OSError, TimeoutExpired):
            status = self._pipe.proc.returncode
            raise OSError(f"the command failed with exit status {status}") from None
        return content

    def close(self) -> None:
        """End it, whether or not it has written everything."""
        self._pipe.stream.close()
        try:
            self._pipe.proc.wait(_PIPE_EXIT_S)
        except TimeoutExpired:
            self._pipe.proc.kill()


def _request(url: str, headers: dict[str, str]) -> HTTPResponse:
    try:
        return urlopen(Request(url, headers=headers), timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code in _PASSING_HTTP_ERRORS:
            raise
        fix = "check the URL and your access to it"
        if error.code == 416:
            fix = f"it is shorter than its index says: copy it again, or {WRITE_INDEX}"
        raise DataError(f"{url} answers {error.code} {error.reason}; {fix}") from None
    except HTTPException as error:
        raise OSError(f"the connection broke: {error!r}") from None


def _served_range(response: HTTPResponse) -> tuple[int | None, int | None]:
    """First byte sent (None: the server ignored the range) and the whole size, where told."""
    served = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status == 206 and served:
        return int(served[1]), None if served[2] == "*" else int(served[2])
    length = response.headers.get("Content-Length")
    return None, int(length) if length and length.isdigit() else None
