"""Bytes that come in order, from wherever a store reads them."""

from collections.abc import Callable
from http.client import HTTPException
from typing import Protocol

from coordtok.errors import DataError

_CHUNK = 1 << 20


class OutOfRange(DataError):
    """A file ends before the bytes that were asked for."""

    def __init__(self, where: str, stop: int) -> None:
        super().__init__(f"{where} ends before byte {stop}: it was cut short; copy it again")


class TooLarge(DataError):
    """A file is larger than what is read of one at once."""

    def __init__(self, where: str, most: int) -> None:
        super().__init__(
            f"{where} is larger than the {most} bytes that are read of it: it is another file"
        )


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class ForwardStream:
    """Bytes that come in order; `position` is the offset of the next one in the file."""

    def __init__(
        self,
        raw: Readable,
        close: Callable[[], None],
        position: int = 0,
        stop: int | None = None,
        total: int | None = None,
    ) -> None:
        self._raw, self.close = raw, close
        self.position = position
        self.stop = stop
        """Where it ends before the file does."""
        self.total = total
        """Bytes of the whole file, where its store says so."""

    def reaches(self, start: int, stop: int) -> bool:
        """Whether the bytes from `start` to `stop` are still to come."""
        return self.position <= start and (self.stop is None or stop <= self.stop)

    def skip_to(self, offset: int) -> None:
        """Read past everything before `offset`."""
        while self.position < offset:
            self.read(min(_CHUNK, offset - self.position))

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; OSError where the stream breaks or ends too early. There is room
        for those that have come, and not for all that were promised."""
        parts = []
        missing = size
        while missing:
            part = self._part(min(missing, _CHUNK))
            if not part:
                raise OSError(f"it ended after {self.position} bytes")
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_all(self, where: str, most: int) -> bytes:
        """Everything to the end. `where` names the file in errors.

        Raises:
            OSError: it breaks, or ends before `total` bytes.
            TooLarge: it has, or is said to have, more than `most` bytes.
        """
        if (self.total or 0) > most:
            raise TooLarge(where, most)
        parts = []
        while part := self._part(_CHUNK):
            if self.position > most:
                raise TooLarge(where, most)
            parts.append(part)
        if self.position < (self.total or 0):
            raise OSError(f"it ended after {self.position} bytes")
        return b"".join(parts)

    def _part(self, size: int) -> bytes:
        try:
            part = self._raw.read(size)
        except (HTTPException, ValueError) as error:
            raise OSError(f"the connection broke: {error!r}") from None
        self.position += len(part)
        return part
