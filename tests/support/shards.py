"""Writing of shards for tests, and shards of tiny clips whose pixels tell which sample and which
frame they are."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coordtok.data.index import INDEX_NAME, SampleEntry, ShardEntry, ShardIndex, VideoSpec
from coordtok.data.tars import index_tar
from coordtok.video.codec import encode_raw

HEIGHT, WIDTH = 2, 4
VIDEO = VideoSpec(frames=4, height=HEIGHT, width=WIDTH, fps=None)
RAW = {"name": "raw"}


def write_tars(
    folder: Path,
    shards: Iterable[Iterable[tuple[str, bytes]]],
    video: VideoSpec,
    *,
    lanes: int = 1,
    codec: Mapping[str, Any] = RAW,
    prefix: str = "part",
    entry: Callable[[Path], ShardEntry] = index_tar,
    tar_format: int = tarfile.PAX_FORMAT,
) -> Path:
    """The one writer of shards in tests: of any members, (name, content) pairs for each shard, with
    an index of what `entry` says of each tar."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, members in enumerate(shards):
        path = folder / f"{prefix}-{number:06d}.tar"
        with tarfile.open(path, "w", format=tar_format) as tar:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        entries.append(entry(path))
    index = ShardIndex(video=video, codec=dict(codec), lanes=lanes, shards=tuple(entries))
    (folder / INDEX_NAME).write_text(index.to_json())
    return folder


def _clip(shard: int, sample: int, frames: int) -> np.ndarray:
    """Frame f of a sample is filled with one number, f more than that of its first frame."""
    first = (shard * 37 + sample * 11) % 100
    values = np.arange(first, first + frames, dtype=np.uint8)
    return np.ones((frames, HEIGHT, WIDTH, 3), np.uint8) * values[:, None, None, None]


def _entry(path: Path, frames: int) -> ShardEntry:
    """What the index says of a tar, independently of `index_tar`."""
    files: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, ext = member.name.partition(".")
            if ext in ("npy", "json"):
                files.setdefault(key, {})[ext] = (member.offset_data, member.size)
    samples = tuple(SampleEntry(key, frames, own) for key, own in files.items())
    content = path.read_bytes()
    return ShardEntry(path.name, len(content), hashlib.sha256(content).hexdigest(), samples)


def _damage_header(path: Path, sample: SampleEntry) -> None:
    with open(path, "r+b") as file:
        file.seek(sample.files["npy"][0] - 400)
        file.write(b"x" * 20)


def _write_shards(
    folder: Path,
    sizes: Sequence[int],
    lanes: int,
    *,
    frames: int = 9,
    damaged: Collection[str] = (),
    damaged_headers: Collection[str] = (),
    foreign: bool = False,
) -> Path:
    """Raw shards with `sizes` samples of `frames` frames; keys are s<shard>-<sample>, a sample's
    class is its shard. Damaged samples have no readable video; foreign members lie between them."""
    shards: list[list[tuple[str, bytes]]] = []
    for shard, size in enumerate(sizes):
        shards.append([])
        for sample in range(size):
            key = f"s{shard:03d}-{sample:03d}"
            content = encode_raw(_clip(shard, sample, frames))
            if foreign:
                shards[-1] += [(f"notes/{key}.txt", b"no sample " * 100), ("README", b"no sample")]
            shards[-1] += [
                (f"{key}.npy", bytes(len(content)) if key in damaged else content),
                (f"{key}.json", json.dumps({"class": shard}).encode()),
            ]

    def entry(path: Path) -> ShardEntry:
        told = _entry(path, frames)
        for sample in told.samples:
            if sample.key in damaged_headers:
                _damage_header(path, sample)
        return told

    return write_tars(folder, shards, VIDEO, lanes=lanes, prefix="train", entry=entry)


def _write_members(
    folder: Path, members: Mapping[str, bytes], tar_format: int = tarfile.PAX_FORMAT
) -> Path:
    """One shard of any members, indexed as shards of strangers are."""
    return write_tars(folder, [members.items()], VIDEO, prefix="a", tar_format=tar_format)


@pytest.fixture(scope="session")
def write_shards() -> Callable[..., Path]:
    """Function (folder, sizes, lanes, ...) that writes shards of raw clips and their index."""
    return _write_shards


@pytest.fixture(scope="session")
def write_members() -> Callable[..., Path]:
    """Function (folder, {name: content}, tar_format) that writes one shard and its index."""
    return _write_members
