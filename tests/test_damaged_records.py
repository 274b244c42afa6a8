"""What commands write down for themselves, damaged: one line, or as if it were not there."""

import contextlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from coordtok.errors import UserError
from coordtok.evaluation.linear_codec import LinearCodec
from coordtok.inference.channel_sums import ChannelSums
from coordtok.inference.latent_shard import WORK, Latent, ShardRecord, write_shard
from coordtok.pretrained.card import CONFIG, read_card
from coordtok.storage.claims import Claim
from coordtok.storage.manifests import first_damage, measure, read_manifest, write_manifest
from coordtok.train.run_folder import RunFolder
from data_prep.work import Segment, VideoRecord, WorkFolder
from tests.support.damage import damage
from tests.support.damaged_bytes import damaged_bytes
from tests.support.tiny import TINY

EXPORT = Path(__file__).parent / "fixtures/export_v1"


def card(folder: Path) -> tuple[Path, Callable[[], object]]:
    path = folder / CONFIG
    path.write_bytes((EXPORT / CONFIG).read_bytes())
    return path, lambda: read_card(folder).to_json()


def manifest(folder: Path) -> tuple[Path, Callable[[], object]]:
    (folder / "file").write_bytes(b"content")
    path = folder / "manifest.json"
    write_manifest(path, {"file": measure(folder / "file")})

    def read() -> None:
        with contextlib.suppress(ValueError):  # as those who read it do
            first_damage(folder, read_manifest(path).items())

    return path, read


def claim(folder: Path) -> tuple[Path, Callable[[], object]]:
    mine = Claim(folder, "build.json", {"sizes": [1, 2], "seed": 3})
    mine.take("inputs")
    mine.complete({"videos": 3})
    return folder / "build.json", lambda: mine.take("inputs")


def video_record(folder: Path) -> tuple[Path, Callable[[], object]]:
    work = WorkFolder(folder)
    work.create()
    work.put_video(VideoRecord("a.mp4", 25.0, (Segment("a-0", 0, 8, 100, 7, 9),)))
    (path,) = (folder / ".work/videos").glob("*/*")
    return path, lambda: work.video("a.mp4")


def shard_record(folder: Path) -> tuple[Path, Callable[[], object]]:
    (folder / WORK).mkdir()
    sums = ChannelSums(TINY.latent.channels)
    planes = {name: torch.ones(shape) for name, shape in TINY.latent.shapes.items()}
    write_shard(folder / "x.tar", [Latent("a", planes, {"frames": 8})], sums, [])
    return folder / WORK / "x.tar.json", lambda: ShardRecord.load(folder, "x.tar")


def metrics(folder: Path) -> tuple[Path, Callable[[], object]]:
    run = RunFolder(str(folder))
    run.metrics.write_text('{"step": 1, "loss": 0.5}')
    return run.metrics, lambda: run.truncate_metrics(1)


RECORDS = (card, manifest, claim, video_record, shard_record, metrics)


@pytest.mark.parametrize("make", RECORDS)
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_damaged_record_is_one_line_or_made_anew(
    tmp_path: Path, make: Callable[[Path], tuple[Path, Callable[[], object]]], seed: int
) -> None:
    path, read = make(tmp_path)
    good = path.read_bytes()
    rng = random.Random(seed)
    read()
    for _ in range(40 if seed == 1 else 1000):
        path.write_bytes(damage("x.json", good, rng).data)
        with contextlib.suppress(UserError):
            read()


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_damaged_linear_codec_is_one_line(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "codec"
    codec = LinearCodec((2, 2, 2), torch.zeros(24), torch.eye(24)[:3])
    rng = random.Random(seed)
    shapes = ((), (0,), (3,), (24,), (3, 24), (3, 24, 1), (0, 24))
    for _ in range(40 if seed == 1 else 1000):
        codec.save(path)
        if rng.random() < 0.5:
            path.write_bytes(damaged_bytes(path.read_bytes(), rng).data)
        else:
            kinds = (torch.float32, torch.int64, torch.bool, torch.float64)
            values, texts = (
                (0.0, torch.nan),
                ("2,2,2", "0,0,0", "-2,-2,2", "2,2", "", "9" * 5000, "x"),
            )
            tensors = {
                name: torch.full(rng.choice(shapes), rng.choice(values)).to(rng.choice(kinds))
                for name in ("mean", "basis")
            }
            path.write_bytes(save(tensors, {"tubelet": rng.choice(texts)}))
        with contextlib.suppress(UserError):
            LinearCodec.load(path, (8, 8, 8), 192).reconstruct(torch.zeros(1, 8, 8, 8, 3))
