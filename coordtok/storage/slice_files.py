"""Files of slices of flattened tensors: safetensors, written in one pass, read in ranges, with a
SHA-256 of every MiB.

Each tensor of a file is a slice, in float32; the header's metadata says where in its flattened
whole it begins ("starts") and gives the digests of its pieces ("sha256", one after the other). The
digest of the header itself stands elsewhere, so that a reader can trust what it reads, and reads
the header and the pieces it needs, no more. Nothing here needs torch.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from coordtok.storage.files import replaced_file
from coordtok.storage.json_files import parse_json
from coordtok.storage.manifests import FileFacts

PIECE = 1 << 20
"""Bytes that are checked, hence read, together."""
ITEM = 4
"""Bytes of a number."""
_DIGEST = 64
_LARGEST_HEADER = 100_000_000
"""What the safetensors library reads."""


class Span(NamedTuple):
    """Numbers `start` to `stop` of a flattened tensor."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    def overlap(self, other: "Span") -> "Span":
        """What both hold; of no size where they hold nothing together."""
        start = max(self.start, other.start)
        return Span(start, max(start, min(self.stop, other.stop)))


def pieces_of(held: Span, wanted: Span) -> list[Span]:
    """The pieces of a slice `held` by a file that together cover `wanted`, a part of it."""
    length = PIECE // ITEM
    start, stop = read_for(held, wanted)
    return [Span(first, min(first + length, stop)) for first in range(start, stop, length)]


def read_for(held: Span, wanted: Span) -> Span:
    """What is read of a slice `held` by a file for `wanted`, a part of it: whole pieces."""
    length = PIECE // ITEM
    before, beyond = wanted.start - held.start, wanted.stop - held.start
    end = held.start + -(-beyond // length) * length
    return Span(held.start + before // length * length, min(end, held.stop))


def header_of(spans: Mapping[str, Span], digests: Mapping[str, str] | None = None) -> bytes:
    """What a file of `spans` begins with; of the same length whatever the digests are."""
    if digests is None:
        digests = {key: "0" * _DIGEST * _count_pieces(span) for key, span in spans.items()}
    text = _entries(spans, digests)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def header_size(spans: Mapping[str, Span]) -> int:
    """Bytes of `header_of(spans)`, without making its digests."""
    size = len(_entries(spans, dict.fromkeys(spans, "")))
    size += _DIGEST * sum(map(_count_pieces, spans.values()))
    return 8 + size + -size % 8


def _count_pieces(span: Span) -> int:
    return -(-span.size * ITEM // PIECE)


def _entries(spans: Mapping[str, Span], digests: Mapping[str, str]) -> bytes:
    metadata = {"starts": {key: span.start for key, span in spans.items()}, "sha256": digests}
    entries: dict[str, Any] = {"__metadata__": {k: json.dumps(v) for k, v in metadata.items()}}
    offset = 0
    for key, span in spans.items():
        end = offset + span.size * ITEM
        entries[key] = {"dtype": "F32", "shape": [span.size], "data_offsets": [offset, end]}
        offset = end
    return json.dumps(entries, separators=(",", ":")).encode()


def write_slices(
    path: Path, spans: Mapping[str, Span], values: Callable[[str], memoryview]
) -> FileFacts:
    """Write a file of `spans`; `values(key)` gives the bytes of one, and is called once for each.

    Returns the size of the file and the digest of its header.

    Raises:
        OSError: it cannot be written; nothing of it remains.
    """
    digests: dict[str, str] = {}
    with replaced_file(path) as file:
        file.write(header_of(spans))
        for key in spans:
            data = values(key)
            digests[key] = ""
            for first in range(0, data.nbytes, PIECE):
                piece = data[first : first + PIECE]
                digests[key] += sha256(piece).hexdigest()
                file.write(piece)
        size = file.tell()
        header = header_of(spans, digests)
        file.seek(0)
        file.write(header)
    return FileFacts(size, sha256(header).hexdigest())


class SliceFile:
    """An open file that `write_slices` wrote, known by what that returned.

    Whatever is wrong with it is a `ValueError` that names the file.
    """

    def __init__(self, path: Path, facts: FileFacts) -> None:
        self._path = path
        self.bytes_read = 0
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise self._unreadable(error) from None
        try:
            self._check_size(facts.bytes)
            header = self._read_header(facts)
            self._parse(header, facts.bytes - 8 - len(header))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "SliceFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def read(self, key: str, wanted: Span) -> Iterator[tuple[Span, memoryview]]:
        """The checked pieces that cover `wanted`; each one's memory is written over by the next."""
        held = self._spans.get(key)
        if held is None or held.overlap(wanted) != wanted:
            raise ValueError(f"{self._path.name} does not hold {key} from {wanted.start} on")
        buffer = memoryview(bytearray(min(PIECE, held.size * ITEM)))
        for piece in pieces_of(held, wanted):
            data = buffer[: piece.size * ITEM]
            first = (piece.start - held.start) * ITEM
            self._read_into(data, self._offsets[key] + first)
            digest = self._digests[key][first // PIECE * _DIGEST :][:_DIGEST]
            if sha256(data).hexdigest() != digest:
                raise ValueError(f"the checksum of {self._path.name} differs, in {key}")
            yield piece, data

    def _check_size(self, expected: int) -> None:
        size = os.fstat(self._descriptor).st_size
        if size != expected:
            raise ValueError(f"{self._path.name} has {size} bytes instead of {expected}")

    def _read_header(self, facts: FileFacts) -> bytes:
        prefix = bytearray(min(8, facts.bytes))
        self._read_into(memoryview(prefix), 0)
        length = int.from_bytes(prefix, "little")
        if length > min(_LARGEST_HEADER, facts.bytes - 8):
            raise ValueError(f"the checksum of {self._path.name} differs, in its header")
        header = bytearray(length)
        self._read_into(memoryview(header), 8)
        if sha256(prefix + header).hexdigest() != facts.sha256:
            raise ValueError(f"the checksum of {self._path.name} differs, in its header")
        return bytes(header)

    def _parse(self, header: bytes, room: int) -> None:
        """Take the slices that `header` names, which lie in `room` bytes after it."""
        try:
            entries = parse_json(header)
            metadata = entries.pop("__metadata__")
            starts, self._digests = map(parse_json, (metadata["starts"], metadata["sha256"]))
            self._offsets, self._spans = {}, {}
            for key, entry in entries.items():
                begin, end = entry["data_offsets"]
                if not 0 <= begin <= end <= room:
                    raise ValueError(f"{key} lies outside of it")
                self._offsets[key] = 8 + len(header) + begin
                self._spans[key] = Span(starts[key], starts[key] + (end - begin) // ITEM)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self._path.name} is no file of slices: {error}") from None

    def _read_into(self, buffer: memoryview, offset: int) -> None:
        done = 0
        while done < buffer.nbytes:
            try:
                count = os.preadv(self._descriptor, [buffer[done:]], offset + done)
            except OSError as error:
                raise self._unreadable(error) from None
            if count == 0:
                raise ValueError(f"{self._path.name} ends before byte {offset + buffer.nbytes}")
            done += count
        self.bytes_read += done

    def _unreadable(self, error: OSError) -> ValueError:
        if isinstance(error, FileNotFoundError):
            return ValueError(f"{self._path.name} is missing")
        return ValueError(f"{self._path.name} cannot be read: {error.strerror}")
