"""A lane's way through shards that only come as streams: forwards, holding one block at most.

The order inside a shuffle block is not the order of the bytes, so the rest of a block waits in
memory until its turn. What is not wanted is read past without being looked at.
"""

from collections.abc import Iterable

from coordtok.data.index import MOST_FILE_BYTES, WRITE_INDEX, SampleEntry, ShardEntry
from coordtok.data.member import (
    HEADER_BYTES,
    Retry,
    StoredSample,
    UnreadableSample,
    check_header,
    header_offset,
)
from coordtok.errors import DataError
from coordtok.storage.forward import ForwardStream, OutOfRange
from coordtok.storage.stores import StreamStore


class StreamedLane:
    """One lane's place in its present shard, and the rest of the block that it is reading."""

    def __init__(self, store: StreamStore, retry: Retry) -> None:
        self._store, self._retry = store, retry
        self._shard: ShardEntry | None = None
        self._stream: ForwardStream | None = None
        self._held: dict[int, dict[str, bytes | Exception]] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes of samples that have been read and not yet handed out."""
        files = (file for held in self._held.values() for file in held.values())
        return sum(len(file) for file in files if isinstance(file, bytes))

    def sample(self, shard: ShardEntry, sample: int, ahead: Iterable[int]) -> StoredSample:
        """A sample of `shard`; those in `ahead` are kept when the stream passes them."""
        if shard is not self._shard:
            self.close()
            self._shard = shard
        if sample not in self._held:
            wanted = {sample, *ahead}
            self._retry(lambda: self._hold(shard, wanted), self._store.describe(shard.name))
        files = self._held.pop(sample)

        def read_into(ext: str, offset: int, buffer: memoryview) -> None:
            content = files[ext]
            if isinstance(content, Exception):
                raise content
            buffer[:] = content[offset : offset + buffer.nbytes]

        return StoredSample(shard.samples[sample], read_into)

    def close(self) -> None:
        """Leave the present shard."""
        self._held = {}
        self._leave_stream()

    def _leave_stream(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _hold(self, shard: ShardEntry, wanted: set[int]) -> None:
        """Read the wanted samples in the order of their bytes."""
        where = self._store.describe(shard.name)
        entries = {sample: shard.samples[sample] for sample in wanted}
        places = sorted(
            (header_offset(entry, ext, where), sample, ext)
            for sample, entry in entries.items()
            for ext in entry.files
        )
        stop = max(sum(place) for entry in entries.values() for place in entry.files.values())
        held: dict[int, dict[str, bytes | Exception]] = {sample: {} for sample in wanted}
        try:
            stream = self._stream_at(shard, places[0][0], stop)
            for offset, sample, ext in places:
                held[sample][ext] = _read_member(stream, offset, entries[sample], ext, where)
        except BaseException:
            self._leave_stream()
            raise
        self._held = held
        if stream.stop is not None:
            self._leave_stream()

    def _stream_at(self, shard: ShardEntry, start: int, stop: int) -> ForwardStream:
        if self._stream is None or not self._stream.reaches(start, stop):
            self._leave_stream()
            self._stream = _open(self._store, shard, start, stop)
        return self._stream


def _open(store: StreamStore, shard: ShardEntry, start: int, stop: int) -> ForwardStream:
    """A stream of a shard that is as long as its index says, where its store knows."""
    try:
        stream = store.open(shard.name, start, stop)
    except OutOfRange as error:
        raise DataError(f"{error}, or {WRITE_INDEX}") from None
    if stream.total not in (None, shard.bytes):
        stream.close()
        raise DataError(
            f"{store.describe(shard.name)} has {stream.total} bytes where the index has "
            f"{shard.bytes}: it is truncated or another file; copy it again, or {WRITE_INDEX}"
        )
    return stream


def _read_member(
    stream: ForwardStream, offset: int, entry: SampleEntry, ext: str, where: str
) -> bytes | Exception:
    """A file's bytes, or what is wrong with them: it only matters if someone wants that file."""
    if offset < stream.position:
        raise DataError(f"{where}: {entry.key}.{ext} overlaps the file before it: {WRITE_INDEX}")
    stream.skip_to(offset)
    header = stream.read(HEADER_BYTES)
    size = entry.files[ext][1]
    if size > MOST_FILE_BYTES:
        return UnreadableSample(f".{ext} has {size} bytes, more than {MOST_FILE_BYTES}")
    content = stream.read(size)
    try:
        check_header(header, entry, ext, where)
    except (UnreadableSample, DataError) as error:
        return error
    return content
