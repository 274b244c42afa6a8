"""Sums of what a sample's files hold, so that damage is noticed that still decodes.

A file is checked as a whole, raw frames each by itself, so that a window checks what it reads and
nothing more. XXH3 of 64 bits, which runs as fast as memory is read; indexes of before it have
CRC-32, which takes ten times as long. Raw frames of a local shard are compared once in a process
for as long as the shard's file stays as it is: reading them again takes little more than copying.
"""

import re
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import xxhash

from coordtok.storage.local import FileVersion

Sums = str | tuple[int, int, str]
"""Hexadecimal digits, of a whole file; or its (bytes before the first frame, bytes of a frame,
digits for what is before it and for every frame). Sixteen are XXH3's, eight CRC-32's."""

_XXH3_DIGITS, _CRC32_DIGITS = 16, 8
_HEXADECIMAL = re.compile(r"[0-9a-f]+")
_CHUNK = 1 << 22


def sums_of(file: BinaryIO, offset: int, size: int, frames: tuple[int, int] | None = None) -> Sums:
    """The sums of the file that lies in `file` from `offset` on.

    Args:
        frames: of a file of raw frames, the offset of the first one and the bytes of each.
    """
    file.seek(offset)
    if frames is None:
        return _xxh3(file, size)
    head, frame = frames
    rest = _pieces(head, frame, size) - 1
    return head, frame, "".join(_xxh3(file, piece) for piece in [head, *[frame] * rest])


def pieces_within(sums: Sums, size: int, offset: int, count: int) -> range:
    """The numbers of the pieces that lie wholly in `count` bytes from `offset` on of a file of
    `size` bytes: 0 is what is before its first frame, or the whole."""
    head, frame = (size, 0) if isinstance(sums, str) else sums[:2]
    first = 1 + (max(0, -((head - offset) // frame)) if frame else 0) if offset else 0
    beyond = offset + count - head
    after = 0 if beyond < 0 else 1 + (beyond // frame if frame else 0)
    return range(first, max(first, after))


def difference(sums: Sums, size: int, offset: int, content: memoryview) -> str | None:
    """Which part of a file of `size` bytes is not as it was when `sums` were taken ("frame 3 of ",
    or "" where they are of the whole), or None.

    content: its bytes from `offset` on; of a part of a frame nothing can be said.
    """
    whole = isinstance(sums, str)
    head, frame, digits = (size, 0, sums) if isinstance(sums, str) else sums
    each = len(digits) // _pieces(head, frame, size)
    sum_of = xxhash.xxh3_64_hexdigest if each == _XXH3_DIGITS else _crc32_of
    pieces = pieces_within(sums, size, offset, content.nbytes)
    ends = [head + number * frame - offset for number in pieces]
    starts = [end - frame if number else 0 for number, end in zip(pieces, ends)]
    found = [sum_of(content[start:end]) for start, end in zip(starts, ends)]
    wanted = digits[each * pieces.start : each * pieces.stop]
    if "".join(found) == wanted:
        return None
    number = next(n for n, sum_ in zip(pieces, found) if sum_ != digits[each * n :][:each])
    return "" if whole else f"frame {number - 1} of " if number else "the header of "


class IntactFrames:
    """The raw frames of a shard that agreed with their sums since it last changed."""

    def __init__(self, version: Callable[[], FileVersion | None] = lambda: None) -> None:
        """version: gives the shard's as it is now; None where it may change unseen, and nothing is
        known."""
        self.version = version
        self._known_of: FileVersion | None = None
        self._pieces: dict[tuple[str, str], int] = {}

    def know(self, file: tuple[str, str], pieces: range, before: FileVersion) -> bool:
        """Whether these pieces of a file, read after the shard had version `before`, need not be
        compared."""
        if before != self._known_of or before != self.version():
            return False
        bits = _bits(pieces)
        return self._pieces.get(file, 0) & bits == bits

    def add(self, file: tuple[str, str], pieces: range, before: FileVersion) -> None:
        """These pieces agree, read after the shard had version `before`."""
        if before != self._known_of:
            self._known_of, self._pieces = before, {}
        self._pieces[file] = self._pieces.get(file, 0) | _bits(pieces)


def sums_from_json(stored: Any, size: int, what: str) -> Sums:
    """Read the sums of a file of `size` bytes; ValueError says what is wrong with them."""
    if isinstance(stored, str):
        head, frame, digits = size, 0, stored
    elif isinstance(stored, list) and list(map(type, stored)) == [int, int, str]:
        head, frame, digits = stored
    else:
        raise ValueError(f"the checksum of {what} is a {type(stored).__name__} of another form")
    pieces = _pieces(head, frame, size)
    if min(head, frame) < 0 or head > size or head + (pieces - 1) * frame != size:
        raise ValueError(f"the checksum of {what} is not of the {size} bytes that it has")
    each = len(digits) / pieces
    if not _HEXADECIMAL.fullmatch(digits) or each not in (_XXH3_DIGITS, _CRC32_DIGITS):
        raise ValueError(f"the checksum of {what} is not hexadecimal digits, sixteen a piece")
    return digits if isinstance(stored, str) else (head, frame, digits)


def _pieces(head: int, frame: int, size: int) -> int:
    return 1 + ((size - head) // frame if frame else 0)


def _xxh3(file: BinaryIO, size: int) -> str:
    sum_ = xxhash.xxh3_64()
    while size > 0 and (chunk := file.read(min(size, _CHUNK))):
        sum_.update(chunk)
        size -= len(chunk)
    return sum_.hexdigest()


def _crc32_of(content: memoryview) -> str:
    return f"{zlib.crc32(content):08x}"


def _bits(numbers: range) -> int:
    """An integer with these bits set."""
    return (1 << numbers.stop) - (1 << numbers.start)
