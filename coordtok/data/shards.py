"""A dataset of tar shards, opened: its checked index, and the bytes of any of its samples.

A location is a local folder, an http(s) URL of one, or a `pipe:` command with `{name}` that the
user typed. Locally a sample is read at its offset (local.py); elsewhere (remote.py) each lane reads
forwards through its shards (streams.py). Failing input is tried again with growing pauses and is
then fatal, so that a bad disk or network can never change the order of the samples.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from coordtok.data.index import INDEX_NAME, WRITE_INDEX, ShardIndex
from coordtok.data.local import FolderSource
from coordtok.data.member import StoredSample
from coordtok.data.streams import StreamedLane
from coordtok.errors import DataError
from coordtok.storage.attempts import retry
from coordtok.storage.remote import PIPE, HttpSource, PipeSource

IO_RETRIES = 3


class ShardReader:
    """Reads the samples of one dataset; a process that is forked reads on its own."""

    def __init__(self, location: str, index: ShardIndex, io_retries: int = IO_RETRIES) -> None:
        self.location = location
        self.index = index
        self._io_retries = io_retries
        self._source = _source(location)
        self._lanes: dict[int, StreamedLane] = {}

    @property
    def held_bytes(self) -> int:
        """Bytes read ahead of their turn: on streams, the rest of a block for every lane."""
        return sum(lane.held_bytes for lane in self._lanes.values())

    def sample(
        self, shard: int, sample: int, *, lane: int = 0, ahead: Iterable[int] = ()
    ) -> StoredSample:
        """A sample by its place in the index.

        Args:
            lane: on whose stream to read it; each lane moves forwards through its own shards.
            ahead: the samples of the shard that this lane will ask for next, in any order.

        Raises:
            DataError: the source cannot be read, or the index describes another tar.
        """
        entry = self.index.shards[shard]
        if isinstance(self._source, FolderSource):
            return self._source.sample(entry, entry.samples[sample], self._retry)
        if lane not in self._lanes:
            self._lanes[lane] = StreamedLane(self._source, self._retry)
        return self._lanes[lane].sample(entry, sample, ahead)

    def close(self) -> None:
        """Let go of files and streams; reading again opens them again."""
        for lane in self._lanes.values():
            lane.close()
        if isinstance(self._source, FolderSource):
            self._source.close()

    def _retry(self, action: Callable[[], None], what: str) -> None:
        retry(action, what, self._io_retries)


@dataclass(frozen=True)
class OpenedShards:
    """One dataset of a mixture."""

    reader: ShardReader
    weight: float = 1.0

    @property
    def location(self) -> str:
        return self.reader.location

    @property
    def index(self) -> ShardIndex:
        return self.reader.index


def open_shards(location: str, weight: float = 1.0, io_retries: int = IO_RETRIES) -> OpenedShards:
    """Open the shards at `location`; raises as `load_index` does."""
    return OpenedShards(ShardReader(location, load_index(location, io_retries), io_retries), weight)


def load_index(location: str, io_retries: int = IO_RETRIES) -> ShardIndex:
    """The index of the shards at `location`.

    Raises:
        DataError: nothing there, no index or a damaged one, no samples, or (where it costs little
            to see: in a local folder) shards that are not those of the index.
    """
    source = _source(location)
    where = source.describe(INDEX_NAME)
    contents: list[bytes] = []
    retry(lambda: contents.append(source.read_index()), where, io_retries)
    try:
        with _no_garbage_collection():
            index = ShardIndex.from_json(contents[0].decode(), where)
    except UnicodeDecodeError:
        raise DataError(f"{where} is not text: {WRITE_INDEX}") from None
    if index.samples == 0:
        raise DataError(f"{where} lists no samples; build shards from at least one video")
    if isinstance(source, FolderSource):
        source.check(index)
        source.close()
    return index


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """An index is millions of objects that all stay: scanning them again and again while they come
    takes longer than reading them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _source(location: str) -> FolderSource | HttpSource | PipeSource:
    if location.startswith(PIPE):
        return PipeSource(location)
    if location.startswith(("http://", "https://")):
        return HttpSource(location)
    if "://" in location:
        raise DataError(
            f"{location} is neither a folder, an http(s) URL nor a pipe: command; read it through "
            "a command that writes a file to its output: 'pipe:COMMAND .../{name}'"
        )
    return FolderSource(location)
