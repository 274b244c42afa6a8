"""Files of a local folder, read at any offset, with nothing kept but open descriptors."""

import os
import time
from collections import OrderedDict
from pathlib import Path

from coordtok.storage.files import read_whole
from coordtok.storage.forward import OutOfRange, TooLarge

FileVersion = tuple[int, int, int]
_OPEN_FILES = 128
_SETTLED_NS = 3_000_000_000
"""Longer than the steps in which any file system keeps times: what was written before that and is
written again bears another time."""


class LocalStore:
    """The files of a folder; the most recently used ones stay open."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._open: OrderedDict[str, int] = OrderedDict()

    def describe(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def exists(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def size(self, name: str) -> int:
        """Bytes of a file; raises OSError."""
        return os.stat(self.folder / name).st_size

    def version(self, name: str) -> FileVersion | None:
        """Which file it is, its size and when it changed: another one after it is replaced or
        written to (through memory that maps it, once that is written back). None if it changed
        within the last seconds, or cannot be opened."""
        try:
            found = os.fstat(self._descriptor(name))
        except OSError:
            return None
        if time.time_ns() - found.st_ctime_ns < _SETTLED_NS:
            return None
        return found.st_ino, found.st_size, found.st_ctime_ns

    def read(self, name: str, most: int) -> bytes:
        """All of a file of at most `most` bytes; raises OSError and `TooLarge`."""
        try:
            return read_whole(self.folder / name, most)
        except ValueError:
            raise TooLarge(self.describe(name), most) from None

    def read_into(self, name: str, offset: int, *buffers: memoryview) -> None:
        """Fill the buffers, one after the other, from byte `offset` of a file on.

        Raises:
            OSError: a failure that may pass.
            OutOfRange: the file is shorter.
        """
        stop = offset + sum(buffer.nbytes for buffer in buffers)
        left = [buffer for buffer in buffers if buffer.nbytes]
        try:
            descriptor = self._descriptor(name)
            while left:
                count = os.preadv(descriptor, left, offset)
                if count == 0:
                    raise OutOfRange(self.describe(name), stop)
                offset += count
                left = _after(left, count)
        except OSError:
            # A stale handle of a network disk stays stale: the next attempt opens it anew.
            if name in self._open:
                os.close(self._open.pop(name))
            raise

    def close(self) -> None:
        """Close all files; reading again opens them again."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _descriptor(self, name: str) -> int:
        if name not in self._open:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[name] = os.open(self.folder / name, os.O_RDONLY)
        self._open.move_to_end(name)
        return self._open[name]


def _after(buffers: list[memoryview], count: int) -> list[memoryview]:
    """What follows the first `count` bytes of the buffers."""
    while buffers and count >= buffers[0].nbytes:
        count -= buffers[0].nbytes
        buffers = buffers[1:]
    return [buffers[0][count:], *buffers[1:]] if count else buffers
