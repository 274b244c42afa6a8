"""CRC-32 of what a sample's files hold, so that damage is noticed that still decodes.

A file is checked as a whole, raw frames each by itself, so that a window checks what it reads and
nothing more. CRC-32 finds any one error of up to 32 neighbouring bits, and all but one in 4 billion
of the others; zlib's runs at some 4 GB/s on a core, where a core decodes H.264 at 20 MB/s.
"""

import re
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

Sums = str | tuple[int, int, str]
"""Eight hexadecimal digits, of a whole file; or its (bytes before the first frame, bytes of a
frame, eight digits for what is before it and for every frame)."""

_DIGITS = 8
_HEXADECIMAL = re.compile(r"(?:[0-9a-f]{8})+")
_CHUNK = 1 << 22


def sums_of(file: BinaryIO, offset: int, size: int, frames: tuple[int, int] | None = None) -> Sums:
    """The sums of the file that lies in `file` from `offset` on.

    Args:
        frames: of a file of raw frames, the offset of the first one and the bytes of each.
    """
    file.seek(offset)
    if frames is None:
        return _crc32(file, size)
    head, frame = frames
    pieces = [head, *[frame] * ((size - head) // frame)]
    return head, frame, "".join(_crc32(file, piece) for piece in pieces)


def difference(sums: Sums, size: int, offset: int, content: memoryview) -> str | None:
    """Which part of a file of `size` bytes is not as it was when `sums` were taken ("frame 3 of ",
    or "" where they are of the whole), or None.

    content: its bytes from `offset` on; of a part of a frame nothing can be said.
    """
    whole = isinstance(sums, str)
    head, frame, digits = (size, 0, sums) if isinstance(sums, str) else sums
    for number, start, stop in _pieces_within(head, frame, offset, offset + content.nbytes):
        expected = digits[_DIGITS * number : _DIGITS * (number + 1)]
        if f"{zlib.crc32(content[start - offset : stop - offset]):08x}" != expected:
            return "" if whole else f"frame {number - 1} of " if number else "the header of "
    return None


def sums_from_json(stored: Any, size: int, what: str) -> Sums:
    """Read the sums of a file of `size` bytes; ValueError says what is wrong with them."""
    if isinstance(stored, str):
        head, frame, digits = size, 0, stored
    elif isinstance(stored, list) and list(map(type, stored)) == [int, int, str]:
        head, frame, digits = stored
    else:
        raise ValueError(f"the CRC-32 of {what} is a {type(stored).__name__} of another form")
    if not _HEXADECIMAL.fullmatch(digits):
        raise ValueError(f"the CRC-32 of {what} is not hexadecimal digits, eight for each piece")
    frames = len(digits) // _DIGITS - 1
    if min(head, frame) < 0 or bool(frame) != bool(frames) or head + frame * frames != size:
        raise ValueError(f"the CRC-32 of {what} is not of the {size} bytes that it has")
    return digits if isinstance(stored, str) else (head, frame, digits)


def _crc32(file: BinaryIO, size: int) -> str:
    value = 0
    while size > 0 and (chunk := file.read(min(size, _CHUNK))):
        value = zlib.crc32(chunk, value)
        size -= len(chunk)
    return f"{value:08x}"


def _pieces_within(head: int, frame: int, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """The pieces that lie wholly in [start, stop), with their numbers; that of the head is 0."""
    if start == 0 and head <= stop:
        yield 0, 0, head
    if frame:
        first = max(0, -((head - start) // frame))
        for number in range(first, (stop - head) // frame):
            yield number + 1, head + number * frame, head + (number + 1) * frame
