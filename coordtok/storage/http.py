"""Files below an http(s) URL.

The wanted bytes are asked for by range, so that a resume is a jump; a server that knows no ranges
sends the file from its start. (fsspec's own http, tried with our tests, reads neither from such
servers nor URLs with a query, and tries again what a server refuses for good.)
"""

import re
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from coordtok.errors import DataError
from coordtok.storage.forward import ForwardStream, OutOfRange

_TIMEOUT_S = 60.0
_PASSING_HTTP_ERRORS = (408, 425, 429, 500, 502, 503, 504)
_NO_SUCH_RANGE = 416
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


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

    def read(self, name: str) -> bytes:
        """All of a file; raises as `open` does."""
        with _request(self.describe(name), {}) as response:
            _, total = _served_range(response)
            return ForwardStream(response, response.close, total=total).read_all()


def _request(url: str, headers: dict[str, str]) -> HTTPResponse:
    """The server's answer; what it refuses for good is a DataError, but for the wrong range."""
    try:
        return urlopen(Request(url, headers=headers), timeout=_TIMEOUT_S)
    except HTTPError as error:
        error.close()
        if error.code in (*_PASSING_HTTP_ERRORS, _NO_SUCH_RANGE):
            raise
        raise DataError(
            f"{url} answers {error.code} {error.reason}; check the URL and your access to it"
        ) from None
    except HTTPException as error:
        raise OSError(f"the connection broke: {error!r}") from None


def _served_range(response: HTTPResponse) -> tuple[int | None, int | None]:
    """First byte sent (None: the server ignored the range) and the whole size, if given."""
    served = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status == 206 and served:
        return int(served[1]), None if served[2] == "*" else int(served[2])
    length = response.headers.get("Content-Length")
    return None, int(length) if length and length.isdigit() else None
