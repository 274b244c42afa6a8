"""Shards in a local folder: checked when opened, then read at offsets, with nothing kept."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import TypeVar

from coordtok.data.index import INDEX_NAME, WRITE_INDEX, SampleEntry, ShardEntry, ShardIndex
from coordtok.data.member import (
    HEADER_BYTES,
    Retry,
    StoredSample,
    UnreadableSample,
    check_header,
    header_offset,
)
from coordtok.errors import DataError, one_line

_OPEN_FILES = 128
_SHARDS_TO_PROBE = 8
_SAMPLES_TO_PROBE = 8

T = TypeVar("T")


class FolderSource:
    """The shards of a folder; the most recently used files stay open."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._open: OrderedDict[str, int] = OrderedDict()

    def describe(self, name: str) -> str:
        return str(self._folder / name)

    def read_index(self) -> bytes:
        """The bytes of `index.json`; DataError says what is missing and how to make it."""
        path = self._folder / INDEX_NAME
        if path.is_file():
            return path.read_bytes()
        build = f"python -m data_prep.build_shards --input VIDEOS --output {self._folder}"
        if not self._folder.exists():
            raise DataError(f"{self._folder} does not exist; build shards there: {build}")
        if not self._folder.is_dir():
            raise DataError(f"{self._folder} is a file; name the folder that holds the shards")
        if any(self._folder.glob("*.tar")):
            raise DataError(
                f"{self._folder} has tar files but no {INDEX_NAME}; write it: "
                f"python -m data_prep.verify_shards {self._folder} --write-index"
            )
        raise DataError(f"{self._folder} holds no shards; build some there: {build}")

    def check(self, index: ShardIndex) -> None:
        """Compare the folder with its index, as far as that costs little.

        Raises:
            DataError: a shard is missing or of another size, or no sample that was looked at is
                where the index says. (One that is not may be damaged, and is skipped in its turn.)
        """
        for shard in index.shards:
            self._check_size(shard)
        probed = [
            (shard, entry)
            for shard in _spread(index.shards, _SHARDS_TO_PROBE)
            for entry in _spread(shard.samples, _SAMPLES_TO_PROBE)
        ]
        problems = [problem for place in probed if (problem := self._probe(*place))]
        if probed and len(problems) == len(probed):
            raise DataError(
                f"{self._folder}: none of the {len(probed)} samples looked at is where "
                f"{INDEX_NAME} says ({problems[0]}); {WRITE_INDEX}"
            )

    def sample(self, shard: ShardEntry, entry: SampleEntry, retry: Retry) -> StoredSample:
        """One sample; each of its files is read, header first, when asked for."""
        where = self.describe(shard.name)

        def read_into(ext: str, offset: int, buffer: memoryview) -> None:
            start = header_offset(entry, ext, where)
            header = bytearray(HEADER_BYTES)

            def read() -> None:
                self._fill(shard.name, start, memoryview(header))
                self._fill(shard.name, start + HEADER_BYTES + offset, buffer)

            retry(read, where)
            check_header(header, entry, ext, where)

        return StoredSample(entry, read_into)

    def close(self) -> None:
        """Close all files; reading again opens them again."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _check_size(self, shard: ShardEntry) -> None:
        path = self.describe(shard.name)
        try:
            size = os.stat(path).st_size
        except OSError as error:
            raise DataError(
                f"{path} is in the index but cannot be opened ({error.strerror}); "
                f"copy it again, or {WRITE_INDEX}"
            ) from None
        if size != shard.bytes:
            state = "is truncated" if size < shard.bytes else "is another file"
            raise DataError(
                f"{path} {state}: it has {size} bytes, its index says {shard.bytes}; "
                f"copy it again, or {WRITE_INDEX}"
            )

    def _probe(self, shard: ShardEntry, entry: SampleEntry) -> str | None:
        """What is wrong with the place of a sample."""
        sample = self.sample(shard, entry, lambda action, _: action())
        try:
            sample.read(next(iter(entry.files)), size=0)
        except (UnreadableSample, OSError) as error:
            return f"{entry.key} in {shard.name}: {one_line(error)}"
        return None

    def _fill(self, name: str, offset: int, buffer: memoryview) -> None:
        try:
            descriptor = self._descriptor(name)
            done = 0
            while done < buffer.nbytes:
                count = os.preadv(descriptor, [buffer[done:]], offset + done)
                if count == 0:
                    raise DataError(
                        f"{self.describe(name)} ends before byte {offset + buffer.nbytes}: it was "
                        "cut short while in use; copy it again"
                    )
                done += count
        except OSError:
            # A stale handle of a network disk stays stale: the next attempt opens it anew.
            if name in self._open:
                os.close(self._open.pop(name))
            raise

    def _descriptor(self, name: str) -> int:
        if name not in self._open:
            if len(self._open) >= _OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
            self._open[name] = os.open(self._folder / name, os.O_RDONLY)
        self._open.move_to_end(name)
        return self._open[name]


def _spread(items: tuple[T, ...], count: int) -> tuple[T, ...]:
    return items[:: max(1, -(-len(items) // count))]
