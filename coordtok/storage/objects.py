"""Files in object stores, through fsspec: s3://, gs:// and hf:// URLs.

A file is read in ranges, so that a resume is a jump. fsspec's file systems run threads and hold
connections that do not survive a fork, so each process that reads makes its own. Access and
endpoints are configured as their libraries say (environment, ~/.aws, fsspec's own files).
"""

import os
from collections.abc import Callable
from concurrent import futures
from threading import Thread
from typing import Any, TypeVar

from coordtok.errors import DataError, one_line
from coordtok.storage.forward import ForwardStream, OutOfRange

EXTRAS = {"s3": "s3", "gs": "gcs", "hf": "hf"}
"""The protocols that are read, and the extra of this package that installs each."""
_PIECE = 8 << 20
_TIMEOUT_S = 60.0
"""For one request of at most `_PIECE` bytes."""

T = TypeVar("T")


class ObjectStore:
    """Files below a URL of an object store, read forwards."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._system: Any = None
        self._process = 0
        self._sizes: dict[str, int] = {}

    def describe(self, name: str) -> str:
        return f"{self._url}/{name}"

    def open(self, name: str, start: int, stop: int) -> ForwardStream:
        """The bytes [start, stop) of a file.

        Raises:
            OSError: a failure that may pass.
            DataError: no such file, no access or no library; `OutOfRange` where it is shorter.
        """
        total = self._size(name)
        if stop > total:
            raise OutOfRange(self.describe(name), stop)
        pieces = _Pieces(lambda first, last: self._range(name, first, last), start, stop)
        return ForwardStream(pieces, lambda: None, start, stop, total)

    def read(self, name: str, most: int) -> bytes:
        """All of a file of at most `most` bytes; raises as `open` does, and `TooLarge`."""
        return self.open(name, 0, self._size(name)).read_all(self.describe(name), most)

    def _size(self, name: str) -> int:
        if name not in self._sizes:
            self._sizes[name] = self._ask(name, lambda system, url: int(system.info(url)["size"]))
        return self._sizes[name]

    def _range(self, name: str, start: int, stop: int) -> bytes:
        content = self._ask(name, lambda system, url: system.cat_file(url, start=start, end=stop))
        if len(content) != stop - start:
            raise OSError(f"{len(content)} bytes came of the {stop - start} from {start} on")
        return content

    def _ask(self, name: str, question: Callable[[Any, str], T]) -> T:
        """The file system's answer about a file; its libraries raise what they like."""
        url = self.describe(name)
        system = self._connected()
        try:
            return _within(_TIMEOUT_S, lambda: question(system, url))
        except (FileNotFoundError, PermissionError) as error:
            raise DataError(
                f"{url} cannot be read ({one_line(error)}); check the URL and your access to it"
            ) from None
        except Exception as error:
            self._system = None  # the next attempt connects anew
            if isinstance(error, OSError):
                raise
            raise OSError(f"{type(error).__name__}: {one_line(error)}") from None

    def _connected(self) -> Any:
        if self._system is None or self._process != os.getpid():
            self._system, self._process = _connect(self._url), os.getpid()
        return self._system


class _Pieces:
    """The bytes [start, stop) of a file, fetched in pieces as they are read."""

    def __init__(self, fetch: Callable[[int, int], bytes], start: int, stop: int) -> None:
        self._fetch, self._next, self._stop = fetch, start, stop
        self._piece = memoryview(b"")

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end."""
        if not self._piece and self._next < self._stop:
            content = self._fetch(self._next, min(self._stop, self._next + _PIECE))
            self._next += len(content)
            self._piece = memoryview(content)
        part, self._piece = self._piece[:size], self._piece[size:]
        return bytes(part)


def _connect(url: str) -> Any:
    """A file system for `url` that is this process's own."""
    protocol = url.partition("://")[0]
    try:
        import fsspec

        return fsspec.filesystem(protocol, skip_instance_cache=True)
    except ImportError as error:
        raise DataError(
            f"{url} cannot be read without a library ({one_line(error)}); "
            f"pip install 'coordtok[{EXTRAS[protocol]}]'"
        ) from None


def _within(seconds: float, action: Callable[[], T]) -> T:
    """What `action` returns or raises; OSError where it takes longer. It runs in a thread of its
    own, because a library may wait without end."""
    answer: futures.Future[T] = futures.Future()

    def run() -> None:
        try:
            answer.set_result(action())
        except BaseException as error:
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except futures.TimeoutError:
        raise OSError(f"no answer within {seconds:g} s") from None
