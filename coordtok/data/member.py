"""One sample of a shard as the loader sees it: named files, read by offset, each checked (raw
frames once in a process, while their file stays as it is).

Before a file's bytes are used, the tar header in front of them must agree with the index. A damaged
header makes the sample unreadable, which its lane skips, and so do bytes that differ from their
checksum in the index; an intact header of something else means that the index describes another
tar, and then nothing it says can be trusted.
"""

import tarfile
from collections.abc import Callable

from coordtok.data.index import MOST_FILE_BYTES, WRITE_INDEX, SampleEntry, ShardEntry
from coordtok.data.sums import IntactFrames, Sums, difference, pieces_within
from coordtok.errors import DataError
from coordtok.storage.local import FileVersion, LocalStore

HEADER_BYTES = 512

ReadInto = Callable[[str, int, memoryview], None]
"""(extension, offset in that file, buffer to fill)"""
Retry = Callable[[Callable[[], None], str], None]
"""(action, what it reads): runs the action, again after an OSError, and gives up with DataError"""


class UnreadableSample(Exception):
    """A sample whose content cannot be used; its lane goes on with the next one."""


class StoredSample:
    """One sample's files: `entry.files` lists their extensions and sizes."""

    def __init__(
        self, entry: SampleEntry, read_into: ReadInto, intact: IntactFrames | None = None
    ) -> None:
        """intact: what of its shard need not be compared with its checksums again."""
        self.entry = entry
        self._read_into = read_into
        self._intact = IntactFrames() if intact is None else intact

    def read(self, ext: str, offset: int = 0, size: int | None = None) -> bytes:
        """`size` bytes of the file KEY.`ext` from `offset` on; all that follow by default.

        Raises:
            UnreadableSample: the file is damaged, shorter than that, or too large to be read.
            DataError: its store cannot be read, or the index describes another tar.
        """
        total = self.entry.files[ext][1]
        wanted = max(total - offset, 0) if size is None else size
        if wanted > MOST_FILE_BYTES:
            raise UnreadableSample(f".{ext} has {wanted} bytes, more than {MOST_FILE_BYTES}")
        buffer = bytearray(wanted)
        self.read_into(ext, offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, ext: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from byte `offset` of the file KEY.`ext`; raises as `read` does."""
        total = self.entry.files[ext][1]
        if offset + buffer.nbytes > total:
            raise UnreadableSample(
                f".{ext} has {total} bytes, fewer than the {offset + buffer.nbytes} it needs"
            )
        sums = self.entry.checksums.get(ext)
        before = self._intact.version() if isinstance(sums, tuple) else None
        self._read_into(ext, offset, buffer)
        if sums is not None:
            self._check(ext, offset, buffer, sums, before)

    def _check(
        self, ext: str, offset: int, content: memoryview, sums: Sums, before: FileVersion | None
    ) -> None:
        """Compare bytes with the index's checksums, but for frames that are known.

        before: the shard's version before they were read, where it keeps frames in mind.
        """
        file, size = (self.entry.key, ext), self.entry.files[ext][1]
        pieces = pieces_within(sums, size, offset, content.nbytes) if before else range(0)
        if before and self._intact.know(file, pieces, before):
            return
        part = difference(sums, size, offset, content)
        if part is not None:
            raise UnreadableSample(f"checksum: {part}.{ext} is not what was indexed, it is damaged")
        if before:
            self._intact.add(file, pieces, before)


def sample_at(
    store: LocalStore,
    shard: ShardEntry,
    entry: SampleEntry,
    retry: Retry,
    intact: IntactFrames | None = None,
) -> StoredSample:
    """A sample of a local shard; each of its files is read, header first, when asked for."""
    where = store.describe(shard.name)
    checked: set[str] = set()

    def read_into(ext: str, offset: int, buffer: memoryview) -> None:
        if ext not in checked and offset:
            read_into(ext, 0, memoryview(b""))
        start = header_offset(entry, ext, where)
        if ext in checked:
            first = start + HEADER_BYTES + offset
            retry(lambda: store.read_into(shard.name, first, buffer), where)
            return
        header = bytearray(HEADER_BYTES)
        retry(lambda: store.read_into(shard.name, start, memoryview(header), buffer), where)
        check_header(header, entry, ext, where)
        checked.add(ext)

    return StoredSample(entry, read_into, intact)


def header_offset(entry: SampleEntry, ext: str, where: str) -> int:
    """Where the tar header of a file begins: just before its data."""
    offset = entry.files[ext][0] - HEADER_BYTES
    if offset < 0:
        raise DataError(f"{where}: {entry.key}.{ext} begins inside a tar header: {WRITE_INDEX}")
    return offset


def check_header(header: bytes | bytearray, entry: SampleEntry, ext: str, where: str) -> None:
    """Compare a tar header with the index. `where` names the shard in errors.

    Raises:
        UnreadableSample: the header is damaged.
        DataError: it is the intact header of another file, or of another size.
    """
    size = entry.files[ext][1]
    if _is_plain(header, f"{entry.key}.{ext}", size):
        return
    try:
        member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise UnreadableSample(f"the tar header of .{ext} is damaged ({error})") from None
    if not (member.isreg() and member.size == size and _is_named(member.name, entry.key, ext)):
        raise DataError(
            f"{where} holds {member.name!r} of {member.size} bytes where the index has "
            f"'{entry.key}.{ext}' of {size}: the index is of other shards; {WRITE_INDEX}"
        )


def _is_plain(header: bytes | bytearray, name: str, size: int) -> bool:
    """Whether it is the intact header of that file as this project and most others write it: for
    these `tarfile` need not be asked, which takes five times as long."""
    digits, name_field = header[148:156], name.encode("utf-8", "surrogateescape") + b"\0"
    return (
        len(name_field) <= tarfile.LENGTH_NAME
        and header.startswith(name_field)
        and header[124:136] == b"%011o\0" % size
        and header[156:157] == tarfile.REGTYPE
        and header[345:346] == b"\0"  # no folders before the name
        and digits == b"%06o\0 " % (sum(header) - sum(digits) + 8 * ord(" "))
    )


def _is_named(found: str, key: str, ext: str) -> bool:
    expected = f"{key}.{ext}"
    if len(expected) > tarfile.LENGTH_NAME or not expected.isascii():
        # The name is whole only in an extended header, in one of several dialects.
        return True
    return _base_name(found) == _base_name(expected)


def _base_name(name: str) -> str:
    return name.rsplit("/", 1)[-1].casefold()
