import json
from pathlib import Path

import pytest

from coordtok.benchmarks.bench_train import PHASES
from coordtok.benchmarks.communication import covered
from coordtok.benchmarks.phases import Clock, Timed
from coordtok.benchmarks.synthetic import write_noise_latents
from coordtok.config.models import DiTModelConfig
from coordtok.data.clip_reader import ClipReader
from coordtok.data.clips import one_per_sample
from coordtok.data.latents import LatentReader, LatentSpec
from coordtok.data.shards import open_shards
from tests.support.ranks import finish

TINY = [
    "model.plane_start=learned", "model.linear_path=false",
    "model.frames=8", "model.height=32", "model.width=32", "model.video_patch=[4,8,8]",
    "model.plane_size=[4,4,4]", "model.plane_patch=[2,2,2]", "model.dim=24", "model.heads=2",
    "model.plane_layers=1", "model.decoder_layers=1", "train.points=16", "train.global_batch=4",
    "data.workers=0",
]  # fmt: skip


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_training_is_measured_in_full(tmp_path: Path, ranks: int) -> None:
    path = tmp_path / "figures.json"
    options = ["--deepspeed", "ds_configs/zero3_fp32.json", "model.video_layers=1", "--steps", "2"]
    measure = ["train", *options, "--json", path, *TINY]
    output = finish("benchmark.py", *measure, ranks=ranks).stdout()
    assert "TFLOP/s a rank\npeak memory" in output
    figures = json.loads(path.read_text())
    assert figures["command"] == "train"
    assert {"cpu", "cores", "torch", "devices"} <= set(figures["machine"])
    measured = figures["train"]
    for name in (*PHASES, "step", "clocked step", "clips_per_s", "flops_per_s", "peak_bytes"):
        assert measured[name] > 0, name
    assert (measured["communication"] > 0) or ranks == 1
    assert figures["settings"]["ranks"] == ranks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--deepspeed", "none.json"], "cannot read the DeepSpeed JSON none.json"),
        (["train", "--deepspeed", "none.json", "--steps", "0"], "--steps 0: it must be"),
        (["train", "--deepspeed", "x", "data.shards=/nowhere", "--json", "/"], "--json / cannot"),
        (["loader", "--clips", "0"], "--clips 0: it must be at least 1"),
        (["loader", "--work-folder", "/nowhere"], "--work-folder /nowhere is no folder"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    errors = finish("benchmark.py", *arguments, code=2).stderr()
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in errors


def test_shards_that_are_asked_for_are_read(tmp_path: Path) -> None:
    options = ["--deepspeed", "ds_configs/zero3_fp32.json", f"data.shards={tmp_path / 'none'}"]
    errors = finish("benchmark.py", "train", *options, *TINY, code=2).stderr()
    assert "none does not exist; build shards there" in errors


def test_a_generator_trains_on_noise_as_well(tmp_path: Path) -> None:
    model = DiTModelConfig(plane_size=(4, 2, 6), plane_channels=4, dim=16, heads=2, layers=1)
    opened = open_shards(write_noise_latents(tmp_path, model.latent, lanes=3, samples_per_shard=2))
    spec = LatentSpec.of(opened.index, opened.location)
    assert spec.latent.difference(model.latent) is None
    assert opened.index.lanes == 3
    read = LatentReader(spec)
    (batch,) = ClipReader(opened, one_per_sample(opened.index, read.frames, 0), read, batch=6)
    assert len(batch.numbers) == 6
    assert 0.9 < batch.data["yt"].std() < 1.1


@pytest.mark.slow
def test_a_generator_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    options = ["--deepspeed", "ds_configs/zero3_fp32.json", "--config", "dit_tiny", "--steps", "2"]
    small = ["model.dim=16", "model.layers=1", "train.global_batch=2"]
    finish("benchmark.py", "train", *options, "--json", path, *small)
    assert json.loads(path.read_text())["train"]["clips_per_s"] > 0


def test_time_in_collectives_is_counted_once() -> None:
    assert covered([]) == 0
    assert covered([(5, 7), (0, 2), (1, 3), (1, 2)]) == 5


def test_named_methods_count_as_their_phase() -> None:
    clock = Clock(PHASES)
    timed = Timed([2, 1], clock, {"sort": "data"})
    timed.append(3)
    assert set(clock.take().values()) == {0.0}
    timed.sort()
    taken = clock.take()
    assert taken["data"] > 0
    assert taken["forward"] == 0
    assert set(clock.take().values()) == {0.0}
