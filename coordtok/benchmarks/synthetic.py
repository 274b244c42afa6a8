"""Raw shards of noise, where a measurement needs samples but not what is in them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from coordtok.data.codec import encode_raw
from coordtok.data.files import write_whole
from coordtok.data.index import INDEX_NAME, ShardEntry, ShardIndex, VideoSpec
from coordtok.data.tars import index_tar, write_tar

_INFO = b'{"class": null}'


def write_noise_shards(
    folder: Path, clip: VideoSpec, *, lanes: int, shards_per_lane: int, samples_per_shard: int
) -> str:
    """Shards whose samples are two clips long each; returns the folder."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (2 * clip.frames, clip.height, clip.width, 3), np.uint8)
    frames = encode_raw(video)
    shards: list[ShardEntry] = []
    for number in tqdm(range(lanes * shards_per_lane), desc="shards of noise", unit="shard"):
        path = folder / f"noise-{number:06d}.tar"
        with open(path, "wb") as file:
            write_tar(file, _members(number, samples_per_shard, frames))
        shards.append(index_tar(path))
    index = ShardIndex(clip, {"name": "raw"}, lanes, tuple(shards))
    write_whole(folder / INDEX_NAME, index.to_json().encode())
    return str(folder)


def _members(shard: int, samples: int, frames: bytes) -> Iterator[tuple[str, bytes]]:
    for sample in range(samples):
        key = f"noise-{shard:06d}-{sample:06d}"
        yield f"{key}.npy", frames
        yield f"{key}.json", _INFO
