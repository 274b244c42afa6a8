"""A dataset of tar shards, opened: its checked index, and the bytes of any of its samples.

A location is a local folder, a URL of one (http(s), s3, gs, hf), or a `pipe:` command with `{name}`
that the user typed (`storage.stores`). Locally a sample is read at its offset (member.py);
elsewhere each lane reads forwards through its shards (streams.py). Failing input is tried again
with growing pauses and is then fatal, so that a bad disk or network can never change the order of
the samples.
"""

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from coordtok.data.index import (
    INDEX_NAME,
    MOST_INDEX_BYTES,
    WRITE_INDEX,
    SampleEntry,
    ShardEntry,
    ShardIndex,
)
from coordtok.data.member import StoredSample, UnreadableSample, sample_at
from coordtok.data.streams import StreamedLane
from coordtok.data.sums import IntactFrames
from coordtok.data.video_folder import VideoFolderReader, open_video_folder
from coordtok.errors import DataError, one_line
from coordtok.storage.attempts import retry
from coordtok.storage.local import LocalStore
from coordtok.storage.stores import StreamStore, open_store
from coordtok.video.folder import Video, find_videos, has_videos

IO_RETRIES = 3
_SHARDS_TO_PROBE = 8
_SAMPLES_TO_PROBE = 8

T = TypeVar("T")


class ShardReader:
    """Reads the samples of one dataset; a process that is forked reads on its own."""

    def __init__(self, location: str, index: ShardIndex, io_retries: int = IO_RETRIES) -> None:
        self.location = location
        self.index = index
        self._io_retries = io_retries
        self._store = open_store(location)
        self._lanes: dict[int, StreamedLane] = {}
        self._intact: dict[int, IntactFrames] = {}

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
            DataError: the shard cannot be read, or the index describes another tar.
        """
        entry = self.index.shards[shard]
        if isinstance(self._store, LocalStore):
            if shard not in self._intact:
                self._intact[shard] = IntactFrames(partial(self._store.version, entry.name))
            intact = self._intact[shard]
            return sample_at(self._store, entry, entry.samples[sample], self._retry, intact)
        if lane not in self._lanes:
            self._lanes[lane] = StreamedLane(self._store, self._retry)
        return self._lanes[lane].sample(entry, sample, ahead)

    def close(self) -> None:
        """Let go of files and streams; reading again opens them again."""
        for lane in self._lanes.values():
            lane.close()
        if isinstance(self._store, LocalStore):
            self._store.close()

    def _retry(self, action: Callable[[], None], what: str) -> None:
        retry(action, what, self._io_retries)


@dataclass(frozen=True)
class OpenedShards:
    """One dataset of a mixture."""

    reader: ShardReader | VideoFolderReader
    weight: float = 1.0

    @property
    def location(self) -> str:
        return self.reader.location

    @property
    def index(self) -> ShardIndex:
        return self.reader.index


def open_shards(
    location: str,
    weight: float = 1.0,
    io_retries: int = IO_RETRIES,
    size: tuple[int, int, int] | None = None,
) -> OpenedShards:
    """Open the shards at `location`.

    Args:
        size: (T, H, W) of clips, where a local folder of videos will do as well.

    Raises:
        DataError: as `load_index` and `open_video_folder` do.
    """
    if size is not None and (videos := _loose_videos(location)):
        return OpenedShards(open_video_folder(location, videos, size, io_retries), weight)
    return OpenedShards(ShardReader(location, load_index(location, io_retries), io_retries), weight)


def load_index(location: str, io_retries: int = IO_RETRIES) -> ShardIndex:
    """The index of the shards at `location`.

    Raises:
        DataError: nothing there, no index or a damaged one, no samples, or (where it costs little
            to see: in a local folder) shards that are not those of the index.
    """
    store = open_store(location)
    where = store.describe(INDEX_NAME)
    contents: list[bytes] = []
    retry(lambda: contents.append(_read_index(store)), where, io_retries)
    try:
        with _no_garbage_collection():
            index = ShardIndex.from_json(contents[0].decode(), where)
    except UnicodeDecodeError:
        raise DataError(f"{where} is not text: {WRITE_INDEX}") from None
    if index.samples == 0:
        raise DataError(f"{where} lists no samples; build shards from at least one video")
    if isinstance(store, LocalStore):
        _check(store, index)
        store.close()
    return index


def _loose_videos(location: str) -> list[Video]:
    """The videos of a local folder that has neither shards nor folders with some."""
    store = open_store(location)
    if not isinstance(store, LocalStore) or store.exists(INDEX_NAME):
        return []
    has_shards = any(store.folder.glob("*.tar")) or any(store.folder.glob(f"*/{INDEX_NAME}"))
    return [] if has_shards else find_videos(store.folder, probe=True)[0]


def _read_index(store: LocalStore | StreamStore) -> bytes:
    if isinstance(store, LocalStore) and not store.exists(INDEX_NAME):
        raise DataError(_without_index(store.folder))
    return store.read(INDEX_NAME, MOST_INDEX_BYTES)


def _without_index(folder: Path) -> str:
    """What is missing where there is no index, and how to make it."""
    build = f"python -m data_prep.build_shards --input VIDEOS --output {folder}"
    if not folder.exists():
        return f"{folder} does not exist; build shards there: {build}"
    if not folder.is_dir():
        return f"{folder} is a file; name the folder that holds the shards"
    if any(folder.glob("*.tar")):
        return (
            f"{folder} has tar files but no {INDEX_NAME}; write it: "
            f"python -m data_prep.verify_shards {folder} --write-index"
        )
    if inside := sorted(str(path.parent) for path in folder.glob(f"*/{INDEX_NAME}")):
        return f"{folder} itself holds no shards; name a folder in it that does: {inside[0]}"
    if has_videos(folder):
        return (
            f"{folder} holds videos, and shards are wanted here: python -m data_prep.build_shards "
            f"--input {folder} --output shards/{folder.resolve().name}, or for latents "
            "scripts/encode.py"
        )
    if any(folder.iterdir()):
        return f"{folder} holds neither shards nor videos; name a folder that does"
    return f"{folder} holds no shards; build some there: {build}"


def _check(store: LocalStore, index: ShardIndex) -> None:
    """Compare a folder with its index, as far as that costs little.

    Raises:
        DataError: a shard is missing or of another size, or no sample that was looked at is where
            the index says. (One that is not may be damaged, and is skipped in its turn.)
    """
    for shard in index.shards:
        _check_size(store, shard)
    probed = [
        (shard, entry)
        for shard in _spread(index.shards, _SHARDS_TO_PROBE)
        for entry in _spread(shard.samples, _SAMPLES_TO_PROBE)
    ]
    problems = [problem for place in probed if (problem := _probe(store, *place))]
    if probed and len(problems) == len(probed):
        raise DataError(
            f"{store.folder}: none of the {len(probed)} samples looked at is where "
            f"{INDEX_NAME} says ({problems[0]}); {WRITE_INDEX}"
        )


def _check_size(store: LocalStore, shard: ShardEntry) -> None:
    where = store.describe(shard.name)
    try:
        size = store.size(shard.name)
    except OSError as error:
        raise DataError(
            f"{where} is in the index but cannot be opened ({error.strerror}); "
            f"copy it again, or {WRITE_INDEX}"
        ) from None
    if size != shard.bytes:
        state = "is truncated" if size < shard.bytes else "is another file"
        raise DataError(
            f"{where} {state}: it has {size} bytes, its index says {shard.bytes}; "
            f"copy it again, or {WRITE_INDEX}"
        )


def _probe(store: LocalStore, shard: ShardEntry, entry: SampleEntry) -> str | None:
    """What is wrong with the place of a sample."""
    sample = sample_at(store, shard, entry, lambda action, _: action())
    try:
        sample.read(next(iter(entry.files)), size=0)
    except (UnreadableSample, OSError) as error:
        return f"{entry.key} in {shard.name}: {one_line(error)}"
    return None


def _spread(items: tuple[T, ...], count: int) -> tuple[T, ...]:
    return items[:: max(1, -(-len(items) // count))]


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
