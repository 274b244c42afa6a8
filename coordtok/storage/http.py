"""Files below an http(s) URL.

The wanted bytes are asked for by range, so that a resume is a jump; a server that knows no ranges
sends the file from its start. (fsspec's own http, tried with our tests, reads neither from such
servers nor URLs with a query, and tries again what a server refuses for good.) A server may send
anything, as slowly as it likes: what it may take is bounded where its bytes come in.
"""

import io
import re
import socket
import time
from functools import cache
from http.client import HTTPConnection, HTTPMessage, HTTPResponse, HTTPSConnection
from typing import IO, Any
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import (
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    Request,
    build_opener,
)

from coordtok.errors import DataError, one_line
from coordtok.storage.forward import ForwardStream, OutOfRange

_PATIENCE_S = 10.0
"""For a server that sends nothing; with all attempts (`data.io_retries`) less than a minute."""
_SLOWEST = 16 << 10
"""Bytes that must come for each further second: at that rate a clip takes longer to come than any
model takes to train on it."""
_PASSING_HTTP_ERRORS = (408, 425, 429, 500, 502, 503, 504)
_NO_SUCH_RANGE = 416
_SIZE = r"\d{1,18}"
_CONTENT_RANGE = re.compile(rf"bytes ({_SIZE})-{_SIZE}/({_SIZE}|\*)", re.ASCII)
_CONTENT_LENGTH = re.compile(_SIZE, re.ASCII)


class HttpStore:
    """Files below an http(s) URL, read forwards."""

    def __init__(self, url: str) -> None:
        try:
            self._parts = urlsplit(url)
        except ValueError as error:
            raise DataError(f"{url} is not a URL ({error}); correct data.shards") from None

    def describe(self, name: str) -> str:
        """The URL of a file; a query stays behind the path."""
        path = f"{self._parts.path.rstrip('/')}/{name}"
        return urlunsplit(self._parts._replace(path=path))

    def open(self, name: str, start: int, stop: int) -> ForwardStream:
        """The bytes [start, stop) of a file, or all of it where the server knows no ranges.

        Raises:
            OSError: a failure that may pass.
            DataError: the server refuses; `OutOfRange` where the file is shorter.
        """
        url = self.describe(name)
        try:
            response = _request(url, {"Range": f"bytes={start}-{stop - 1}"})
        except HTTPError as error:
            if error.code != _NO_SUCH_RANGE:
                raise
            raise OutOfRange(url, stop) from None
        begin, total = _served_range(response)
        if begin not in (None, start):
            response.close()
            raise OSError(f"the server sent bytes from {begin} on, not from {start}")
        if begin is None:
            return ForwardStream(response, response.close, total=total)
        return ForwardStream(response, response.close, start, stop, total)

    def read(self, name: str, most: int) -> bytes:
        """All of a file of at most `most` bytes; raises as `open` does, and `TooLarge`."""
        url = self.describe(name)
        with _request(url, {}) as response:
            _, total = _served_range(response)
            return ForwardStream(response, response.close, total=total).read_all(url, most)


class _Paced(io.RawIOBase):
    """Bytes of a connection: OSError once they have been waited for longer than they are worth.

    Only the time within reads counts, so that a reader may take its own.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw
        self._waited_s, self._bytes = 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        began = time.monotonic()
        count = self._raw.readinto(buffer)
        self._waited_s += time.monotonic() - began
        self._bytes += count or 0
        if count and self._waited_s > _PATIENCE_S + self._bytes / _SLOWEST:
            raise TimeoutError(f"only {self._bytes} bytes came in {self._waited_s:.0f} s")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    """An answer whose bytes, headers included, come at a pace."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Paced(self.fp.detach()))


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Http(HTTPHandler):
    def http_open(self, request: Request) -> HTTPResponse:
        return self.do_open(_Connection, request)


class _Https(HTTPSHandler):
    def https_open(self, request: Request) -> HTTPResponse:
        return self.do_open(_SecureConnection, request)


class _Redirects(HTTPRedirectHandler):
    """To http(s) alone, and never from https to what anyone on the way can read and change."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            raise DataError(
                f"{req.full_url} redirects to {newurl}, which is not {' or '.join(allowed)}; name "
                "a URL that gives the file itself"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@cache
def _opener() -> OpenerDirector:
    return build_opener(_Http, _Https, _Redirects)


def _request(url: str, headers: dict[str, str]) -> HTTPResponse:
    """The server's answer; what it refuses for good is a DataError, but for the wrong range.

    Whatever urllib raises of an answer that is none, it is a connection that broke.
    """
    try:
        return _opener().open(Request(url, headers=headers), timeout=_PATIENCE_S)
    except HTTPError as error:
        error.close()
        if error.code in (*_PASSING_HTTP_ERRORS, _NO_SUCH_RANGE):
            raise
        raise DataError(
            one_line(
                f"{url} answers {error.code} {error.reason}; check the URL and your access to it"
            )
        ) from None
    except (OSError, DataError):
        raise
    except Exception as error:
        raise OSError(f"the connection broke: {error!r}") from None


def _served_range(response: HTTPResponse) -> tuple[int | None, int | None]:
    """First byte sent (None: the server ignored the range) and the whole size, if given."""
    served = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status == 206 and served:
        return int(served[1]), None if served[2] == "*" else int(served[2])
    length = _CONTENT_LENGTH.fullmatch(response.headers.get("Content-Length", ""))
    return None, int(length[0]) if length else None
