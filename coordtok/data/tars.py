"""How samples lie in a tar shard: written for reproducible bytes, read by the headers alone.

The layout is WebDataset's: neighbouring members that share the name up to the first dot of the base
name are one sample, the rest of the name is the extension. The bytes are those that webdataset's
own `TarWriter` gives (a test compares them); it is not called because it brings torch into every
process that builds shards, and what only uses an export is installed without it. Its readers say no
positions, by which everything here is read.
"""

import io
import math
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NamedTuple

from coordtok.data.index import (
    MOST_FILE_BYTES,
    MOST_FRAMES,
    MOST_INFO_BYTES,
    SampleEntry,
    ShardEntry,
)
from coordtok.data.sums import sums_of
from coordtok.errors import DataError, one_line
from coordtok.storage.checksums import sha256_of_rest
from coordtok.storage.files import open_regular
from coordtok.storage.json_files import parse_json
from coordtok.video.codec import UnreadableVideo, count_frames, raw_layout

VIDEO_EXTENSIONS = ("mp4", "npy")
LATENT_EXTENSIONS = ("safetensors",)
_END_MARK = bytes(tarfile.BLOCKSIZE)
_MOST_HEADER_BYTES = 1 << 20
"""Of an extended header: names and dates of a file."""
_MOST_MEMBERS = 1 << 18
"""Of a shard: half a minute of reading headers."""


class Member(NamedTuple):
    """One file in a tar: its name there, the offset of its data and its size in bytes."""

    name: str
    offset: int
    size: int

    @property
    def key_and_extension(self) -> tuple[str, str]:
        """WebDataset's reading of the name; the extension is empty where there is no dot."""
        folder, slash, base = self.name.rpartition("/")
        stem, _, extension = base.partition(".")
        return folder + slash + stem, extension


def write_tar(file: BinaryIO, members: Iterable[tuple[str, bytes]]) -> None:
    """Write (name, data) pairs; the same pairs give the same bytes anywhere, any time."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size, header.mode, header.mtime = len(data), 0o644, 0
            tar.addfile(header, io.BytesIO(data))


def read_members(path: Path) -> list[Member]:
    """All files in a tar, from its headers.

    Raises:
        DataError: not a tar, or cut short.
    """
    try:
        with open_regular(path) as file:
            found, end = _members_of(file)
            file.seek(end)
            mark = file.read(tarfile.BLOCKSIZE)
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        raise DataError(f"{path.name} is not a whole tar: {reason}") from None
    if mark != _END_MARK:
        raise DataError(f"{path.name} is cut short or damaged at byte {end}: no tar header there")
    return found


class _Headers:
    """A file of which headers are read; `tarfile` believes the lengths that are stated of them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes, more than {_MOST_HEADER_BYTES}")
        return self._file.read(size)


def _members_of(file: BinaryIO) -> tuple[list[Member], int]:
    """The members of a tar, and where its headers end. Those that are no plain sequence of bytes
    (links, sparse files) or that no plain header describes are left out."""
    found: list[Member] = []
    headers = end = 0
    with tarfile.open(fileobj=_Headers(file), mode="r:") as tar:  # type: ignore[call-overload]
        while (each := tar.next()) is not None:
            if each.size < 0 or each.offset < end:
                raise tarfile.ReadError(f"the header at byte {each.offset} points back")
            end = each.offset_data
            if each.isreg() and not each.issparse() and "size" not in each.pax_headers:
                found.append(Member(each.name, each.offset_data, each.size))
            if (headers := headers + 1) > _MOST_MEMBERS:
                raise tarfile.ReadError(f"more than {_MOST_MEMBERS} files")
            tar.members.clear()  # it keeps all of them
        return found, tar.offset


def index_tar(path: Path, extensions: Sequence[str] = VIDEO_EXTENSIONS) -> ShardEntry:
    """The index entry of a tar, for shards of any origin.

    Members that belong to no sample, which is a key with one of `extensions`, are left out. A
    sample that cannot be read is listed with 0 frames: the loader skips it and names it.

    Raises:
        DataError: not a whole tar, or two samples with one key.
    """
    members = read_members(path)
    with open_regular(path) as file:
        samples = tuple(_samples(members, file, extensions))
        file.seek(0)
        sha256 = sha256_of_rest(file)
    for key, times in Counter(sample.key for sample in samples).items():
        if times > 1:
            raise DataError(f"{path.name} has {times} samples with the key {key!r}: rename one")
    return ShardEntry(path.name, path.stat().st_size, sha256, samples)


def _samples(
    members: list[Member], file: BinaryIO, extensions: Sequence[str]
) -> Iterator[SampleEntry]:
    for key, group in groupby(members, lambda member: member.key_and_extension[0]):
        files = {member.key_and_extension[1]: (member.offset, member.size) for member in group}
        content = next((ext for ext in extensions if ext in files), None)
        if content is not None:
            frames, raw = _frames(file, content, files)
            checksums = {
                ext: sums_of(file, *place, raw if ext == content else None)
                for ext, place in files.items()
            }
            yield SampleEntry(key, frames, files, checksums)


def _frames(
    file: BinaryIO, extension: str, files: Mapping[str, tuple[int, int]]
) -> tuple[int, tuple[int, int] | None]:
    """Frames of a sample: counted in a video; of latents, what their .json says. Of raw frames also
    the offset of the first one and the bytes of each."""
    if extension in LATENT_EXTENSIONS:
        return _told_frames(file, *files["json"]) if "json" in files else 0, None
    offset, size = files[extension]
    file.seek(offset)
    try:
        if extension == "npy":
            shape, head = raw_layout(file.read(min(size, 4096)), size)
            raw = (head, math.prod(shape[1:])) if head + math.prod(shape) == size else None
            return shape[0], raw
        return count_frames(file.read(size)) if size <= MOST_FILE_BYTES else 0, None
    except UnreadableVideo:
        return 0, None


def _told_frames(file: BinaryIO, offset: int, size: int) -> int:
    file.seek(offset)
    try:
        frames = parse_json(file.read(min(size, MOST_INFO_BYTES)), any_number=True)["frames"]
    except (ValueError, KeyError, TypeError):
        return 0
    return frames if type(frames) is int and 0 < frames <= MOST_FRAMES else 0
