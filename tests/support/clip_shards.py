"""A tiny tokenizer, and shards of few clips that it fits: moving noise, raw, one of them short."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from coordtok.config.schema import TokenizerModelConfig
from coordtok.data.index import ShardIndex, VideoSpec
from coordtok.data.tars import index_tar
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import Card, Origin, TokenizerSettings
from coordtok.pretrained.write import write_export
from tests.support.tiny import TINY

LENGTHS = (20, 8, 5, 12, 9, 16, 8)
"""Frames of each sample: the third is shorter than a clip."""


def _moving_noise(number: int, frames: int, height: int, width: int) -> np.ndarray:
    """Video (T, H, W, 3) that gets brighter, faster the larger `number` is."""
    still = np.random.default_rng(number).integers(0, 120, (1, height, width, 3))
    return (still + number * np.arange(frames)[:, None, None, None]).astype(np.uint8)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _write_shards(
    folder: Path,
    lengths: Sequence[int] = LENGTHS,
    size: tuple[int, int, int] = TINY.video_size,
    damaged: Sequence[int] = (),
) -> Path:
    """Two shards of raw samples; those in `damaged` say that they hold other sizes."""
    folder.mkdir(parents=True)
    frames, height, width = size
    shards = []
    for shard in range(2):
        path = folder / f"part-{shard:06d}.tar"
        with tarfile.open(path, "w") as tar:
            for number in range(shard, len(lengths), 2):
                wrong = 1 if number in damaged else 0
                video = _moving_noise(number, lengths[number], height - wrong, width)
                buffer = io.BytesIO()
                np.save(buffer, video)
                _add(tar, f"clip{number}.npy", buffer.getvalue())
                described = json.dumps({"frames": lengths[number]}).encode()
                _add(tar, f"clip{number}.json", described)
        shards.append(index_tar(path))
    spec = VideoSpec(frames, height, width, None)
    index = ShardIndex(video=spec, codec={"name": "raw"}, lanes=1, shards=tuple(shards))
    (folder / "index.json").write_text(index.to_json())
    return folder


@pytest.fixture(scope="session")
def write_clip_shards() -> Callable[..., Path]:
    """Function (folder, lengths, size, damaged) that writes shards."""
    return _write_shards


@pytest.fixture(scope="session")
def moving_noise() -> Callable[..., np.ndarray]:
    """Function (number, frames, height, width): what sample `number` holds."""
    return _moving_noise


@pytest.fixture(scope="session")
def clip_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_shards(tmp_path_factory.mktemp("clips") / "shards")


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny") / "export"
    write_export(folder, Card(TINY, TokenizerSettings(12), Origin("raw")), _weights(TINY))
    return folder


def _weights(config: TokenizerModelConfig) -> dict[str, torch.Tensor]:
    return CoordTok(config).state_dict()
