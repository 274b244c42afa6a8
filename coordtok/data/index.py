"""The shard index: what a dataset of tar shards holds, and where.

`index.json` lies beside the shards and is written last, so a folder that has one is complete. It
fixes everything the order of the data depends on (shards, samples, lanes), gives the place of every
member so that a resumed loader can jump, and carries a fingerprint of all of it. Outside of that
fingerprint stand the checksums of every sample's files, which the first indexes did not have.
Shards may come from others: all that is read here is checked, and a shard's name must match
`SHARD_NAME` before a path or a URL is made of it.
"""

import hashlib
import json
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any

from coordtok.data.sums import Sums, sums_from_json
from coordtok.errors import DataError
from coordtok.storage.json_files import parse_json

INDEX_NAME = "index.json"
MOST_INDEX_BYTES = 1 << 29
"""Some four million samples; each takes ten times as much memory once it is read."""
MOST_FILE_BYTES = 1 << 30
"""Of a sample's file that is read at once; segments of a few clips have a thousandth of it."""
MOST_INFO_BYTES = 1 << 24
"""Of a KEY.json."""
MOST_FRAMES = 1 << 24
"""Of a sample: three days at 60 per second. Of a video every frame is looked at where all are."""
_MOST_SHARD_BYTES = 1 << 40
"""A stream that cannot jump is read past all of it."""
_MOST_SIDE = 1 << 14
"""Of a frame, in pixels: as large as H.264 knows it."""
INDEX_VERSION = 1
DEFAULT_LANES = 96
MOST_FPS = 1e6
MOST_LANES = 100_000
SHARD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,250}\.tar", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
CHECKSUMS, _CRC32 = "checksums", "crc32"
"""Their name in JSON, now and before."""
WRITE_INDEX = "make it anew: python -m data_prep.verify_shards DIR --write-index"
UNEVEN = 0.1  # lanes that differ by more than this share repeat some samples far more often


@dataclass(frozen=True)
class SampleEntry:
    """One sample of a shard. `files` maps an extension to (offset of its data in the tar, size),
    `checksums` to the sums of what it holds, where the index has them."""

    key: str
    frames: int
    files: Mapping[str, tuple[int, int]]
    checksums: Mapping[str, Sums] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class ShardEntry:
    """One tar file: its size in bytes, its sha256 and its samples in the order they lie there."""

    name: str
    bytes: int
    sha256: str
    samples: tuple[SampleEntry, ...]


_SHARD_FIELDS = {field.name for field in fields(ShardEntry)}


@dataclass(frozen=True)
class VideoSpec:
    """What a training clip is: frames, pixels, and frames per second (None = as in the source)."""

    frames: int
    height: int
    width: int
    fps: float | None


@dataclass(frozen=True)
class ShardIndex:
    """All shards of a dataset. Lane l owns the shards l, l + lanes, l + 2 lanes ..."""

    video: VideoSpec
    codec: Mapping[str, Any]
    lanes: int
    shards: tuple[ShardEntry, ...]

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(len(shard.samples) for shard in self.shards)

    @property
    def has_checksums(self) -> bool:
        """Whether the files of all samples have checksums."""
        samples = (sample for shard in self.shards for sample in shard.samples)
        return all(sample.checksums.keys() == sample.files.keys() for sample in samples)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the index in canonical JSON, without the checksums: two datasets share it only
        if nothing differs."""
        return _digest(self._as_dict())

    def to_json(self) -> str:
        """The text of `index.json`, fingerprint and checksums included."""
        every = {shard.name: checksums_of(shard) for shard in self.shards}
        checksums = {name: sums for name, sums in every.items() if any(sums)}
        whole = {**self._as_dict(), "fingerprint": self.fingerprint, CHECKSUMS: checksums}
        return json.dumps(whole) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "ShardIndex":
        """Read and check an index. `where` names its file in errors.

        Raises:
            DataError: not JSON, another version, wrong types, unsafe or repeated names, lanes
                that do not fit the shards, or a fingerprint of other contents.
        """
        try:
            stored = parse_json(text)
        except ValueError as error:
            raise DataError(f"{where} is not JSON ({error}): {WRITE_INDEX}") from None
        if not isinstance(stored, dict) or stored.get("version") != INDEX_VERSION:
            raise DataError(
                f"{where} is not a shard index of version {INDEX_VERSION}: {WRITE_INDEX}"
            )
        try:
            index = _index(stored)
            found = _digest(index._with_shards(stored["shards"]))
        except (KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise DataError(f"{where} is damaged ({reason}): {WRITE_INDEX}") from None
        if stored.get("fingerprint") != found:
            raise DataError(
                f"{where} was edited: its fingerprint is of other contents: {WRITE_INDEX}"
            )
        vars(index)["fingerprint"] = found  # or the property would put all shards together again
        return index

    def _as_dict(self) -> dict[str, Any]:
        return self._with_shards([shard_as_dict(shard) for shard in self.shards])

    def _with_shards(self, shards: list[Any]) -> dict[str, Any]:
        """What is stored, given the `shards` as they are stored."""
        return {
            "version": INDEX_VERSION,
            "video": asdict(self.video),
            "codec": dict(self.codec),
            "lanes": self.lanes,
            "shards": shards,
        }


def default_lanes(samples: int, asked: int | None = None) -> int:
    """Lanes for `samples` that are dealt one by one: the most that are even (`even_lanes`).

    asked: instead, this many, lowered to a divisor of it only where a lane would be empty.
    """
    if samples < 1 or (asked is not None and asked < 1):
        raise DataError(f"{samples} samples cannot be dealt to {asked} lanes: both must be >= 1")
    if asked is None:
        return even_lanes([1] * samples)
    return max(lanes for lanes in range(1, min(asked, samples) + 1) if asked % lanes == 0)


def even_lanes(shard_samples: Sequence[int]) -> int:
    """The largest divisor of `DEFAULT_LANES` whose lanes hold equally many samples within 10 %."""
    most = min(DEFAULT_LANES, len(shard_samples))
    divisors = [lanes for lanes in range(1, most + 1) if DEFAULT_LANES % lanes == 0]
    return max(lanes for lanes in divisors if unevenness(shard_samples, lanes) <= UNEVEN)


def lane_sizes(shard_samples: Iterable[int], lanes: int) -> list[int]:
    """Samples in each lane, from the samples in each shard."""
    counts = list(shard_samples)
    return [sum(counts[lane::lanes]) for lane in range(lanes)]


def unevenness(shard_samples: Iterable[int], lanes: int) -> float:
    """How much fewer samples the smallest lane has than the largest, as a share of the largest."""
    sizes = lane_sizes(shard_samples, lanes)
    return 1 - min(sizes) / max(1, *sizes)


def shard_as_dict(shard: ShardEntry) -> dict[str, Any]:
    """A shard as it stands in `index.json`."""
    samples = [
        [sample.key, sample.frames, {ext: list(place) for ext, place in sample.files.items()}]
        for sample in shard.samples
    ]
    return {
        "name": shard.name,
        "bytes": shard.bytes,
        "sha256": shard.sha256,
        "samples": samples,
    }


def checksums_of(shard: ShardEntry) -> list[Mapping[str, Sums]]:
    """The checksums of a shard's samples as they stand in `index.json`."""
    return [sample.checksums for sample in shard.samples]


def _digest(stored: Mapping[str, Any]) -> str:
    canonical = json.dumps(stored, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _index(stored: Mapping[str, Any]) -> ShardIndex:
    video = stored["video"]
    spec = VideoSpec(
        frames=_count(video["frames"], "video.frames", 1, MOST_FRAMES),
        height=_count(video["height"], "video.height", 1, _MOST_SIDE),
        width=_count(video["width"], "video.width", 1, _MOST_SIDE),
        fps=_rate(video["fps"]),
    )
    codec = stored["codec"]
    if not isinstance(codec, dict) or not isinstance(codec.get("name"), str):
        raise ValueError("codec has no name")
    checksums = stored.get(CHECKSUMS, stored.get(_CRC32, {}))
    if not isinstance(checksums, dict):
        raise ValueError(f"{CHECKSUMS}: {type(checksums).__name__} where an object belongs")
    shards = tuple(
        shard_from_dict(shard, checksums.get(shard["name"]))
        for shard in _list(stored["shards"], "shards")
    )
    lanes = _count(stored["lanes"], "lanes", 1)
    if len({shard.name for shard in shards}) != len(shards):
        raise ValueError("two shards have one name")
    if lanes > len(shards):
        raise ValueError(f"{lanes} lanes for {len(shards)} shards, a lane needs one at least")
    return ShardIndex(spec, codec, lanes, shards)


def shard_from_dict(stored: Mapping[str, Any], checksums: Any = None) -> ShardEntry:
    """Read what `shard_as_dict` and `checksums_of` gave; KeyError, TypeError or ValueError says
    what is wrong."""
    name = _text(stored["name"], "a shard's name")
    if not SHARD_NAME.fullmatch(name):
        raise ValueError(
            f"shard name {reprlib.repr(name)} is not letters, digits, '.', '_', '-' and .tar"
        )
    size = _count(stored["bytes"], f"bytes of {name}", 0, _MOST_SHARD_BYTES)
    sha256 = _text(stored["sha256"], f"sha256 of {name}")
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"sha256 of {name} is not 64 hexadecimal digits")
    if unknown := stored.keys() - _SHARD_FIELDS:  # they would count in the fingerprint
        raise ValueError(f"{name} has the unknown field {reprlib.repr(min(unknown))}")
    listed = _list(stored["samples"], name)
    sums = [{}] * len(listed) if checksums is None else _list(checksums, f"checksums of {name}")
    if len(sums) != len(listed):
        raise ValueError(f"{name} has {len(listed)} samples and checksums of {len(sums)}")
    samples = tuple(_sample(*pair, size, name) for pair in zip(listed, sums))
    if len({sample.key for sample in samples}) != len(samples):
        raise ValueError(f"two samples of {name} have one key")
    return ShardEntry(name, size, sha256, samples)


def _sample(stored: Any, checksums: Any, shard_bytes: int, shard: str) -> SampleEntry:
    key, frames, files = _list(stored, f"a sample of {shard}")
    key = _text(key, f"a key of {shard}")
    if not isinstance(files, dict) or not files:
        raise ValueError(f"a sample of {shard} has no files")
    places = {ext: _place(place, shard_bytes, shard) for ext, place in files.items()}
    # There is no frame of less than a byte.
    most_frames = min(MOST_FRAMES, sum(size for _, size in places.values()))
    frames = _count(frames, f"frames in {shard}", 0, most_frames)
    if not isinstance(checksums, dict) or not checksums.keys() <= places.keys():
        raise ValueError(f"the checksums of {reprlib.repr(key)} in {shard} are of other files")
    sums = {
        ext: sums_from_json(value, places[ext][1], f"a .{ext} of {shard}")
        for ext, value in checksums.items()
    }
    return SampleEntry(key, frames, places, sums)


def _place(stored: Any, shard_bytes: int, shard: str) -> tuple[int, int]:
    offset, size = _list(stored, f"a member's place in {shard}")
    place = _count(offset, f"an offset in {shard}"), _count(size, f"a size in {shard}")
    if sum(place) > shard_bytes:
        raise ValueError(f"a member of {shard} ends beyond its {shard_bytes} bytes")
    return place


def _count(value: Any, what: str, least: int = 0, most: int | None = None) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"{what} is {reprlib.repr(value)}, not an integer >= {least}")
    if most is not None and value > most:
        raise ValueError(f"{what} is {value}, more than {most}")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{what} is {reprlib.repr(value)}, not a text")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what}: {type(value).__name__} where a list belongs")
    return value


def _rate(value: Any) -> float | None:
    if value is not None and (type(value) not in (int, float) or not 0 < value <= MOST_FPS):
        raise ValueError(f"video.fps is {value!r}, neither null nor above 0 and up to {MOST_FPS:g}")
    return value
