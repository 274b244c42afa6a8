"""One latent shard: its tar, written whole, and then the record that says so.

OUTPUT/  train-000000.tar
         .work/train-000000.tar.json    a `ShardRecord`; gone once the dataset is complete
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from coordtok.data.index import ShardEntry, shard_as_dict, shard_from_dict
from coordtok.data.sequence import SkippedSample
from coordtok.data.tars import LATENT_EXTENSIONS, index_tar, write_tar
from coordtok.inference.channel_sums import Moments
from coordtok.inference.encoder_clips import ClipBatch
from coordtok.storage.files import whole_file, write_whole

WORK = ".work"

StoredPlanes = dict[str, torch.Tensor]
"""Planes of one clip as they are stored, by name."""


@dataclass(frozen=True)
class ShardRecord:
    """What is known of a complete shard."""

    entry: ShardEntry
    moments: Moments
    skipped: tuple[SkippedSample, ...]

    def save(self, folder: Path) -> None:
        record = {
            "shard": shard_as_dict(self.entry),
            "moments": self.moments.to_dict(),
            "skipped": self.skipped,
        }
        write_whole(_record_path(folder, self.entry.name), json.dumps(record).encode())

    @classmethod
    def load(cls, folder: Path, name: str) -> "ShardRecord | None":
        """The record of a shard that is there in its full size; None where it has to be made."""
        try:
            stored = json.loads(_record_path(folder, name).read_bytes())
            entry = shard_from_dict(stored["shard"])
            if entry.name != name or (folder / name).stat().st_size != entry.bytes:
                return None
            skipped = tuple(SkippedSample(*each) for each in stored["skipped"])
            return cls(entry, Moments.from_dict(stored["moments"]), skipped)
        except (OSError, ValueError, KeyError, TypeError):
            return None


def write_shard(
    path: Path,
    clips: Iterable[ClipBatch],
    encode: Callable[[ClipBatch], list[StoredPlanes]],
    moments: Moments,
    skipped: list[SkippedSample],
) -> None:
    """Encode `clips` into the tar at `path`, then write its record.

    moments: zero; skipped: what reading `clips` adds to, complete when they are read.

    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """
    with whole_file(path) as file:
        write_tar(file, _members(clips, encode, moments))
    entry = index_tar(path, LATENT_EXTENSIONS)
    ShardRecord(entry, moments, tuple(skipped)).save(path.parent)


def _members(
    clips: Iterable[ClipBatch],
    encode: Callable[[ClipBatch], list[StoredPlanes]],
    moments: Moments,
) -> Iterator[tuple[str, bytes]]:
    for batch in clips:
        for key, info, planes in zip(batch.keys, batch.infos, encode(batch)):
            moments.add({name: plane.float().numpy() for name, plane in planes.items()})
            yield f"{key}.safetensors", save(planes)
            yield f"{key}.json", json.dumps(info).encode()


def _record_path(folder: Path, name: str) -> Path:
    return folder / WORK / f"{name}.json"
