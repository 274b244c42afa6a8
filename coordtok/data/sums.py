"""Sums of what a sample's files hold, so that damage is noticed that still decodes.

A file is checked as a whole, raw frames each by itself, so that a window checks what it reads and
nothing more. XXH3 of 64 bits, which runs as fast as memory is read; indexes of before it have
CRC-32, which takes ten times as long.
"""

import re
import zlib
from itertools import pairwise
from typing import Any, BinaryIO

import xxhash

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


def difference(sums: Sums, size: int, offset: int, content: memoryview) -> str | None:
    """Which part of a file of `size` bytes is not as it was when `sums` were taken ("frame 3 of ",
    or "" where they are of the whole), or None.

    content: its bytes from `offset` on; of a part of a frame nothing can be said.
    """
    whole = isinstance(sums, str)
    head, frame, digits = (size, 0, sums) if isinstance(sums, str) else sums
    each = len(digits) // _pieces(head, frame, size)
    sum_of = xxhash.xxh3_64_hexdigest if each == _XXH3_DIGITS else _crc32_of
    first, edges = _pieces_within(head, frame, offset, offset + content.nbytes)
    found = [sum_of(content[a - offset : b - offset]) for a, b in pairwise(edges)]
    wanted = digits[each * first : each * (first + len(found))]
    if "".join(found) == wanted:
        return None
    number = first + next(n for n, sum_ in enumerate(found) if sum_ != wanted[each * n :][:each])
    return "" if whole else f"frame {number - 1} of " if number else "the header of "


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


def _pieces_within(head: int, frame: int, start: int, stop: int) -> tuple[int, list[int]]:
    """The number of the first piece that lies wholly in [start, stop), that of the head being 0;
    where it begins, and where it and each piece after it ends."""
    before = max(0, -((head - start) // frame)) if frame else 0
    ends = range(head + before * frame, stop + 1, frame or stop + 1)
    return (1 + before, [*ends]) if start else (0, [0, *ends])
