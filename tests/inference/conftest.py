"""A tiny tokenizer, video shards for it, and the latents of them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from coordtok.data.index import VideoSpec
from coordtok.data.shards import open_shards
from coordtok.inference.encode_shards import Encoding, Summary, encode
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import Card, Origin, TokenizerId, TokenizerSettings
from coordtok.pretrained.fingerprint import fingerprint
from coordtok.pretrained.write import write_export
from coordtok.video.codec import encode_raw
from tests.support.shards import write_tars
from tests.support.tiny import DEEP as CONFIG

SIZES = (3, 1, 2, 3)
"""Videos of each shard of `video`."""


def film(number: int, frames: int, height: int = 16, width: int = 24) -> np.ndarray:
    """Noise that drifts, so that every window differs."""
    still = np.random.default_rng(number).integers(0, 200, (1, height, width, 3))
    return (still + 3 * np.arange(frames)[:, None, None, None]).astype(np.uint8)


def write_video(folder: Path, shards: list[dict[str, bytes]], lanes: int = 1) -> Path:
    """Shards of any members for the tokenizer of these tests."""
    spec = VideoSpec(CONFIG.frames, CONFIG.height, CONFIG.width, None)
    return write_tars(folder, [members.items() for members in shards], spec, lanes=lanes)


def members(key: str, number: int, frames: int) -> dict[str, bytes]:
    info = {"source": f"{key}.avi", "start_frame": 100, "fps": 12.5, "class": number % 3}
    return {
        f"{key}.npy": encode_raw(film(number, frames)),
        f"{key}.json": json.dumps(info).encode(),
    }


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """As in forked processes, whose bytes are compared: sums of two threads differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine videos of 5 to 21 frames in four shards and two lanes."""
    number, shards = 0, []
    for size in SIZES:
        shards.append({})
        for _ in range(size):
            shards[-1].update(members(f"v{number}", number, 5 + 2 * number))
            number += 1
    return write_video(tmp_path_factory.mktemp("video") / "shards", shards, lanes=2)


@pytest.fixture(scope="session")
def tokenizer() -> CoordTok:
    torch.manual_seed(0)
    return CoordTok(CONFIG).eval()


@pytest.fixture(scope="session")
def export(tokenizer: CoordTok, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "tokenizer"
    write_export(folder, Card(CONFIG, TokenizerSettings(24), Origin("raw")), tokenizer.state_dict())
    return folder


@pytest.fixture(scope="session")
def encode_into(
    tokenizer: CoordTok, export: Path
) -> Callable[[Path | str, Path, Encoding], tuple[Summary, int]]:
    """Function (video shards, output folder, Encoding) that encodes in this process."""

    def run(shards: Path | str, output: Path, how: Encoding) -> tuple[Summary, int]:
        name = TokenizerId(str(export), fingerprint(export))
        return encode(tokenizer, name, open_shards(str(shards)), output, how)

    return run


@pytest.fixture(scope="session")
def latents(
    video: Path,
    encode_into: Callable[[Path | str, Path, Encoding], tuple[Summary, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """All windows of `video` in float32."""
    folder = tmp_path_factory.mktemp("latents") / "all"
    encode_into(video, folder, Encoding(dtype="float32", batch=2, workers=0))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
