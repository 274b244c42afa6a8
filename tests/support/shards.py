"""Shards of tiny clips whose pixels tell which sample and which frame they are."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from coordtok.data.index import INDEX_NAME, SampleEntry, ShardEntry, ShardIndex, VideoSpec
from coordtok.data.tars import index_tar
from coordtok.video.codec import encode_raw

HEIGHT, WIDTH = 2, 4


def _clip(shard: int, sample: int, frames: int) -> np.ndarray:
    """Frame f of a sample is filled with one number, f more than that of its first frame."""
    first = (shard * 37 + sample * 11) % 100
    values = np.arange(first, first + frames, dtype=np.uint8)
    return np.ones((frames, HEIGHT, WIDTH, 3), np.uint8) * values[:, None, None, None]


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


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


def _write_index(folder: Path, shards: Sequence[ShardEntry], lanes: int) -> None:
    index = ShardIndex(VideoSpec(4, HEIGHT, WIDTH, None), {"name": "raw"}, lanes, tuple(shards))
    (folder / INDEX_NAME).write_text(index.to_json())


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
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for shard, size in enumerate(sizes):
        path = folder / f"train-{shard:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            for sample in range(size):
                key = f"s{shard:03d}-{sample:03d}"
                content = encode_raw(_clip(shard, sample, frames))
                if foreign:
                    _add(tar, f"notes/{key}.txt", b"no sample " * 100)
                    _add(tar, "README", b"no sample")
                _add(tar, f"{key}.npy", bytes(len(content)) if key in damaged else content)
                _add(tar, f"{key}.json", json.dumps({"class": shard}).encode())
        shards.append(_entry(path, frames))
        for entry in shards[-1].samples:
            if entry.key in damaged_headers:
                _damage_header(path, entry)
    _write_index(folder, shards, lanes)
    return folder


def _write_members(
    folder: Path, members: Mapping[str, bytes], tar_format: int = tarfile.PAX_FORMAT
) -> Path:
    """One shard of any members, indexed as shards of strangers are."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "a.tar", "w", format=tar_format) as tar:
        for name, content in members.items():
            _add(tar, name, content)
    _write_index(folder, [index_tar(folder / "a.tar")], lanes=1)
    return folder


@pytest.fixture(scope="session")
def write_shards() -> Callable[..., Path]:
    """Function (folder, sizes, lanes, ...) that writes shards of raw clips and their index."""
    return _write_shards


@pytest.fixture(scope="session")
def write_members() -> Callable[..., Path]:
    """Function (folder, {name: content}, tar_format) that writes one shard and its index."""
    return _write_members
