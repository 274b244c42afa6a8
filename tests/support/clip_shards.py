"""A tiny tokenizer, and shards of few clips that it fits: moving noise, raw, one of them short."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from coordtok.config.models import TokenizerModelConfig
from coordtok.data.index import VideoSpec
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import Card, Origin, TokenizerSettings
from coordtok.pretrained.write import write_export
from coordtok.video.codec import encode_raw
from tests.support.shards import write_tars
from tests.support.tiny import TINY

LENGTHS = (20, 8, 5, 12, 9, 16, 8)
"""Frames of each sample: the third is shorter than a clip."""


def _moving_noise(number: int, frames: int, height: int, width: int) -> np.ndarray:
    """Video (T, H, W, 3) that gets brighter, faster the larger `number` is."""
    still = np.random.default_rng(number).integers(0, 120, (1, height, width, 3))
    return (still + number * np.arange(frames)[:, None, None, None]).astype(np.uint8)


def _write_shards(
    folder: Path,
    lengths: Sequence[int] = LENGTHS,
    size: tuple[int, int, int] = TINY.video_size,
    damaged: Sequence[int] = (),
) -> Path:
    """Two shards of raw samples; those in `damaged` say that they hold other sizes."""
    frames, height, width = size
    shards: list[list[tuple[str, bytes]]] = [[], []]
    for number, length in enumerate(lengths):
        wrong = 1 if number in damaged else 0
        video = _moving_noise(number, length, height - wrong, width)
        shards[number % 2] += [
            (f"clip{number}.npy", encode_raw(video)),
            (f"clip{number}.json", json.dumps({"frames": length}).encode()),
        ]
    return write_tars(folder, shards, VideoSpec(frames, height, width, None))


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
