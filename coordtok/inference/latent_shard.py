"""One latent shard: its tar, written whole, and then the record that says so.

OUTPUT/  train-000000.tar
         .work/train-000000.tar.json    a `ShardRecord`; gone once the dataset is complete
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save

from coordtok.data.index import CHECKSUMS, ShardEntry, checksums_of, shard_as_dict, shard_from_dict
from coordtok.data.sample import SkippedSample, rate_of
from coordtok.data.tars import LATENT_EXTENSIONS, index_tar, write_tar
from coordtok.inference.channel_sums import ChannelSums
from coordtok.storage.files import whole_file, write_whole
from coordtok.storage.json_files import read_json

WORK = ".work"


class Latent(NamedTuple):
    """What a sample of a latent shard holds."""

    key: str
    planes: dict[str, torch.Tensor]
    """As they are stored, by name."""
    info: dict[str, Any]
    """Its KEY.json."""


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a complete shard."""

    entry: ShardEntry
    sums: ChannelSums
    skipped: tuple[SkippedSample, ...]

    def save(self, folder: Path) -> None:
        record = {
            "shard": shard_as_dict(self.entry),
            CHECKSUMS: checksums_of(self.entry),
            "moments": self.sums.to_dict(),
            "skipped": self.skipped,
        }
        write_whole(_record_path(folder, self.entry.name), json.dumps(record).encode())

    @classmethod
    def load(cls, folder: Path, name: str) -> "ShardRecord | None":
        """The record of a shard that is there in its full size; None where it has to be made."""
        try:
            stored = read_json(_record_path(folder, name))
            entry = shard_from_dict(stored["shard"], stored.get(CHECKSUMS))
            if entry.name != name or (folder / name).stat().st_size != entry.bytes:
                return None
            skipped = tuple(SkippedSample(*each) for each in stored["skipped"])
            return cls(entry, ChannelSums.from_dict(stored["moments"]), skipped)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


def write_shard(
    path: Path, latents: Iterable[Latent], sums: ChannelSums, skipped: list[SkippedSample]
) -> None:
    """Write `latents` into the tar at `path`, then its record.

    sums: zero; skipped: what making `latents` adds to, complete when they are all made.

    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """
    with whole_file(path) as file:
        write_tar(file, _members(latents, sums))
    entry = index_tar(path, LATENT_EXTENSIONS)
    ShardRecord(entry, sums, tuple(skipped)).save(path.parent)


def _members(latents: Iterable[Latent], sums: ChannelSums) -> Iterator[tuple[str, bytes]]:
    for key, planes, info in latents:
        sums.add({name: plane.float().numpy() for name, plane in planes.items()})
        yield f"{key}.safetensors", save(planes)
        yield f"{key}.json", json.dumps(info).encode()


def describe(stored: Mapping[str, Any], key: str, start: int, frames: int) -> dict[str, Any]:
    """What a latent's KEY.json says: where in its source the clip lies, and the video's class.

    stored: what the KEY.json of the video says, of whose frames the clip begins at `start`.
    """
    first = stored.get("start_frame")
    return {
        "source": _text(stored.get("source")) or key,
        "start_frame": (first if type(first) is int and 0 <= first < 1 << 53 else 0) + start,
        "frames": frames,
        "fps": rate_of(stored),
        "class": stored.get("class") if type(stored.get("class")) is int else None,
        "class_name": _text(stored.get("class_name")),
        "split": _text(stored.get("split")),
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _record_path(folder: Path, name: str) -> Path:
    return folder / WORK / f"{name}.json"
