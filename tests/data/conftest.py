"""Shards of tiny raw clips whose pixels tell which sample and which frame they are."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pytest

from coordtok.data.index import INDEX_NAME, SampleEntry, ShardEntry, ShardIndex, VideoSpec

HEIGHT, WIDTH = 2, 4


def key_of(shard: int, sample: int) -> str:
    return f"s{shard:03d}-{sample:03d}"


def clip(shard: int, sample: int, frames: int) -> np.ndarray:
    """Frame f of a sample is filled with one number, f more than that of its first frame."""
    first = (shard * 37 + sample * 11) % 100
    values = np.arange(first, first + frames, dtype=np.uint8)
    return np.ones((frames, HEIGHT, WIDTH, 3), np.uint8) * values[:, None, None, None]


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def sample_entries(path: Path, frames: Sequence[int]) -> tuple[SampleEntry, ...]:
    """The samples of a tar, independently of `index_tar`."""
    files: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, ext = member.name.partition(".")
            if ext in ("npy", "mp4", "json"):
                files.setdefault(key, {})[ext] = (member.offset_data, member.size)
    return tuple(SampleEntry(key, count, own) for count, (key, own) in zip(frames, files.items()))


def write_index(
    folder: Path, samples: Sequence[tuple[SampleEntry, ...]], lanes: int, codec: str = "raw"
) -> ShardIndex:
    shards = []
    for path, entries in zip(sorted(folder.glob("*.tar")), samples):
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        shards.append(ShardEntry(path.name, len(content), digest, entries))
    video = VideoSpec(4, HEIGHT, WIDTH, None)
    index = ShardIndex(video, {"name": codec}, lanes, tuple(shards))
    (folder / INDEX_NAME).write_text(index.to_json())
    return index


def _write_shards(
    folder: Path,
    sizes: Sequence[int],
    lanes: int,
    *,
    frames: int = 9,
    damaged: Collection[str] = (),
    damaged_headers: Collection[str] = (),
    foreign: bool = False,
    labels: bool = True,
) -> Path:
    """Shards with `sizes` samples of `frames` frames; damaged ones have no readable video."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for shard, size in enumerate(sizes):
        path = folder / f"train-{shard:06d}.tar"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            for sample in range(size):
                key = key_of(shard, sample)
                content = npy(clip(shard, sample, frames))
                if key in damaged:
                    content = bytes(len(content))
                if foreign:
                    add(tar, f"notes/{key}.txt", b"pipe:touch executed " * 50)
                    add(tar, "README", b"no sample")
                add(tar, f"{key}.npy", content)
                if labels:
                    add(tar, f"{key}.json", json.dumps({"class": shard}).encode())
        entries = sample_entries(path, [frames] * size)
        for entry in entries:
            if entry.key in damaged_headers:
                with open(path, "r+b") as file:
                    file.seek(entry.files["npy"][0] - 400)
                    file.write(b"x" * 20)
        samples.append(entries)
    write_index(folder, samples, lanes)
    return folder


@pytest.fixture(scope="session")
def write_shards() -> Callable[..., Path]:
    """Function (folder, sizes, lanes, ...) that writes shards of raw clips and their index."""
    return _write_shards


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failing input is tried again at once."""
    monkeypatch.setattr("coordtok.data.shards._FIRST_PAUSE_S", 0.0)
