"""Shards made on the spot, where a measurement needs samples but not what is in them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from coordtok.data.index import INDEX_NAME, ShardEntry, ShardIndex, VideoSpec
from coordtok.data.latents import EXTENSION, LatentSpec
from coordtok.data.tars import LATENT_EXTENSIONS, VIDEO_EXTENSIONS, index_tar, write_tar
from coordtok.geometry.latent import LatentShape
from coordtok.pretrained.card import TokenizerId
from coordtok.progress import ProgressBar
from coordtok.storage.files import write_whole
from coordtok.video.codec import Frames, encode_h264, encode_raw

_INFO = b'{"class": null}'
_STORED: Mapping[str, Any] = {"crf": 18.0, "gop": 16, "pixel_format": "yuv444p"}
"""As `data_prep.build_shards` does by default."""

Files = Mapping[str, bytes]
"""The files of a sample by their extensions."""


def write_noise_shards(
    folder: Path, clip: VideoSpec, *, lanes: int, shards_per_lane: int, samples_per_shard: int
) -> str:
    """Raw shards whose samples are two clips long each; returns the folder."""
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (2 * clip.frames, clip.height, clip.width, 3), np.uint8)
    files = {"npy": encode_raw(video), "json": _INFO}
    shards = _write_tars(folder, lanes * shards_per_lane, samples_per_shard, lambda: files)
    return _write_index(folder, ShardIndex(clip, {"name": "raw"}, lanes, shards))


def write_drift_shards(folder: Path, clip: VideoSpec, *, lanes: int, samples_per_shard: int) -> str:
    """One h264 shard a lane, whose samples are two clips long each; returns the folder.

    Not noise, which would take ten times the bytes and long to decode: a blurred picture that
    drifts, with a little grain. It decodes about as fast as real films, or a little faster.
    """
    film = _drift(2 * clip.frames, clip.height, clip.width)
    video = encode_h264(film, fps=Fraction(25), **_STORED)
    files = {"mp4": video, "json": _INFO}
    shards = _write_tars(folder, lanes, samples_per_shard, lambda: files)
    return _write_index(folder, ShardIndex(clip, {"name": "h264", **_STORED}, lanes, shards))


def write_noise_latents(
    folder: Path, latent: LatentShape, *, lanes: int, samples_per_shard: int
) -> str:
    """One shard a lane of standard normal latents, in bfloat16; returns the folder."""
    channels = latent.channels.items()
    spec = LatentSpec(
        video=VideoSpec(1, 1, 1, None),  # any does: no tokenizer made them
        dtype="bfloat16",
        latent=latent,
        tokenizer=TokenizerId("noise", "noise"),
        mean={plane: (0.0,) * number for plane, number in channels},
        std={plane: (1.0,) * number for plane, number in channels},
    )
    generator = torch.Generator().manual_seed(0)

    def draw() -> Files:
        planes = {
            name: torch.randn(shape, generator=generator).bfloat16()
            for name, shape in latent.shapes.items()
        }
        return {EXTENSION: save(planes), "json": b'{"class": null, "frames": 1}'}

    shards = _write_tars(folder, lanes, samples_per_shard, draw, LATENT_EXTENSIONS)
    return _write_index(folder, ShardIndex(spec.video, spec.codec(), lanes, shards))


def _drift(frames: int, height: int, width: int) -> Frames:
    rng = np.random.default_rng(0)
    blots = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
    picture = np.asarray(blots.resize((width, height), Image.Resampling.BICUBIC))
    film = np.stack([np.roll(picture, (t // 2, t // 3), (0, 1)) for t in range(frames)])
    return (film + rng.normal(0, 1, film.shape)).clip(0, 255).astype(np.uint8)


def _write_tars(
    folder: Path,
    count: int,
    samples: int,
    draw: Callable[[], Files],
    extensions: Sequence[str] = VIDEO_EXTENSIONS,
) -> tuple[ShardEntry, ...]:
    """`count` shards of `samples` samples, each with the files that `draw` gives."""
    shards = []
    for number in ProgressBar(range(count), desc="shards to measure with", unit="shard"):
        path = folder / f"made-{number:06d}.tar"
        with open(path, "wb") as file:
            write_tar(file, _members(number, samples, draw))
        shards.append(index_tar(path, extensions))
    return tuple(shards)


def _members(shard: int, samples: int, draw: Callable[[], Files]) -> Iterator[tuple[str, bytes]]:
    for sample in range(samples):
        for extension, data in draw().items():
            yield f"made-{shard:06d}-{sample:06d}.{extension}", data


def _write_index(folder: Path, index: ShardIndex) -> str:
    write_whole(folder / INDEX_NAME, index.to_json().encode())
    return str(folder)
