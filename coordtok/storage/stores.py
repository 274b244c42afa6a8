"""Where files lie, from what the user typed: a folder, a URL or a command.

A store knows names and bytes. A local one reads at any offset; the others open a file as a stream
that is read forwards.
"""

from typing import Protocol

from coordtok.errors import DataError
from coordtok.storage.commands import PIPE, CommandStore
from coordtok.storage.forward import ForwardStream
from coordtok.storage.http import HttpStore
from coordtok.storage.local import LocalStore
from coordtok.storage.objects import EXTRAS, ObjectStore


class StreamStore(Protocol):
    """Files that are read forwards. Both ways of reading raise OSError for a failure that may pass
    and DataError for one that stays."""

    def describe(self, name: str) -> str:
        """Where a file is, for messages."""

    def open(self, name: str, start: int, stop: int) -> ForwardStream:
        """A stream that gives the bytes [start, stop) of a file; it may begin before them."""

    def read(self, name: str, most: int) -> bytes:
        """All of a file; `TooLarge` where it has more than `most` bytes."""


def open_store(location: str) -> LocalStore | StreamStore:
    """The files at `location`; nothing is read yet.

    Raises:
        DataError: a URL that is not one, of another protocol, or a command without `{name}`.
    """
    if location.startswith(PIPE):
        return CommandStore(location)
    protocol, mark, _ = location.partition("://")
    if not mark:
        return LocalStore(location)
    if protocol in ("http", "https"):
        return HttpStore(location)
    if protocol in EXTRAS:
        return ObjectStore(location)
    raise DataError(
        f"{location} is neither a folder, a URL of http(s), s3, gs or hf, nor a pipe: command; "
        "read it through a command that writes a file to its output: 'pipe:COMMAND .../{name}'"
    )
