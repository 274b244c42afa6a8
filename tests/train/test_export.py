"""From checkpoints of every kind to exports, and from exports back into training."""

import dataclasses
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from coordtok import CoordTok
from coordtok.config.load import build
from coordtok.config.schema import RunConfig
from coordtok.errors import CheckpointError
from coordtok.pretrained.card import read_card
from coordtok.train.checkpoint import read_state
from coordtok.train.checkpoint_folder import find_checkpoint
from coordtok.train.checkpoint_index import read_index
from coordtok.train.export import export_checkpoint
from coordtok.train.initialise import _check_same_model
from coordtok.train.tasks.tokenizer import TokenizerTask
from tests.support.ranks import ROOT
from tests.support.runs import TINY, Run, json_of

NewRun = Callable[..., Run]

SETTINGS = [
    pytest.param(name, ranks, marks=[] if (name, ranks) == ("zero1", 2) else pytest.mark.slow)
    for name in ("zero1", "zero2", "zero3", "zero3_offload")
    for ranks in (1, 2, 4)
]
LITTLE_DECAY = {"decay": 1e-3}
"""The average is the weights but for a thousandth of a step."""


@pytest.mark.parametrize(("name", "ranks"), SETTINGS)
def test_any_sharding(new_run: NewRun, tmp_path: Path, name: str, ranks: int) -> None:
    run = new_run(ema=LITTLE_DECAY)
    run("train.steps=3", ranks=ranks, json=json_of(name, tmp_path))
    check_both_exports(run, tmp_path)


def check_both_exports(run: Run, tmp_path: Path) -> None:
    """The raw one scores what the checkpoint recorded, the average is next to it."""
    models = {}
    for weights in ("raw", "ema"):
        checkpoint, card = export_checkpoint(str(run.folder), tmp_path / weights, weights)
        assert (card.origin.weights, card.origin.step) == (weights, 3)
        models[weights] = CoordTok.from_pretrained(tmp_path / weights)
        assert models[weights].points_per_pass == TINY["train"]["points"]
    raw, ema = (models[weights].state_dict() for weights in ("raw", "ema"))
    for name, tensor in raw.items():
        torch.testing.assert_close(ema[name], tensor, atol=1e-5, rtol=0)
        assert not torch.equal(ema[name], tensor)
    state = read_state(checkpoint)
    run = build(RunConfig, state.config)
    task = TokenizerTask(run, run.model, torch.device("cpu"))
    model = models["raw"].to(getattr(torch, state.precision))
    # bfloat16 keeps 8 bits: its products differ in the last ones with the number of threads.
    tolerance = {"float32": 1e-4, "bfloat16": 1e-3}[state.precision]
    assert task.forward_check(model) == pytest.approx(state.forward_check, rel=tolerance)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, shards: str, val_shards: str) -> Run:
    """A finished ZeRO-3 run on two ranks, to be left as it is."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    data = {"shards": shards, "val_shards": val_shards, "workers": 0}
    path = folder.with_suffix(".yaml")
    config = {"run_dir": str(folder), **TINY, "data": data, "ema": LITTLE_DECAY}
    path.write_text(yaml.safe_dump(config))
    run = Run(path, folder)
    run("train.steps=3", ranks=2)
    return run


def test_two_ranks_of_zero3(trained: Run, tmp_path: Path) -> None:
    check_both_exports(trained, tmp_path)


def run_script(monkeypatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "scripts/export.py"), run_name="__main__")
    return stopped.value.code


def test_the_command_line_takes_the_average_and_says_so(
    trained: Run, tmp_path: Path, monkeypatch, capsys
) -> None:
    assert run_script(monkeypatch, trained.folder, tmp_path / "ema") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path}/ema: moving average of the weights, float32, from ")
    assert said.strip().endswith("checkpoints/step_00000003")
    assert said.count("\n") == 1
    step = trained.folder / "checkpoints/step_00000003"
    options = ["--weights", "raw", "--dtype", "bfloat16"]
    assert run_script(monkeypatch, step, tmp_path / "raw", *options) == 0
    assert "weights as trained, bfloat16" in capsys.readouterr().out
    ema, raw = (CoordTok.from_pretrained(tmp_path / name) for name in ("ema", "raw"))
    biases = [model.decoder.head.bias for model in (ema, raw)]
    assert [bias.dtype for bias in biases] == [torch.float32, torch.bfloat16]
    history = read_card(tmp_path / "ema").origin.history
    assert history["run"]["model"]["dim"] == 24
    (data,) = history["data"]
    assert (data["samples"], data["fps"]) == (14, None)
    assert run_script(monkeypatch, trained.folder, tmp_path / "ema") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_export_starts_a_run(trained: Run, new_run: NewRun, tmp_path: Path) -> None:
    export_checkpoint(str(trained.folder), tmp_path / "raw", "raw")
    psnr = trained.lines("val_psnr")[-1]["val_psnr"]
    second = new_run("second", optim={"lr": 1e-12})
    second("train.steps=1", f"train.init_from={tmp_path / 'raw'}")
    assert second.lines("val_psnr")[-1]["val_psnr"] == pytest.approx(psnr, rel=1e-5)


def test_what_shapes_do_not_tell_is_compared_too(trained: Run) -> None:
    checkpoint = find_checkpoint(trained.folder)
    model = build(RunConfig, read_state(checkpoint).config).model
    found = read_index(checkpoint).shapes
    same = dataclasses.replace(model, legacy_padding=True)
    _check_same_model(model, same, found, found, "there")
    other = dataclasses.replace(model, heads=4)
    with pytest.raises(CheckpointError, match=r"model.heads is 2 there and 4 here"):
        _check_same_model(model, other, found, found, "there")
    shapes = {name: shape for name, shape in found.items() if name != "decoder.position"}
    with pytest.raises(CheckpointError, match=r"decoder.position is no tensor of this model"):
        _check_same_model(model, same, found, shapes, "there")


def refused(source: Path, out: Path, match: str, weights=None) -> None:
    with pytest.raises(CheckpointError, match=match):
        export_checkpoint(str(source), out, weights)
    assert not out.exists()


def test_sources_that_hold_no_weights(trained: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(
        tmp_path / "nowhere",
        out,
        r"nowhere: no such folder; .* one of its step_\*",
    )
    refused(ROOT / "tests/fixtures/export_v1", out, "export_v1 is an export already; name a run")
    empty = tmp_path / "empty"
    (empty / "checkpoints").mkdir(parents=True)
    refused(empty, out, "empty: that run has no complete checkpoint")
    step = tmp_path / "step_00000003"
    shutil.copytree(trained.folder / "checkpoints/step_00000003", step)
    (step / "rank_00001.safetensors").unlink()
    refused(step, out, r"is damaged .rank_00001.safetensors is missing.; name another checkpoint")
    (step / "manifest.json").unlink()
    refused(step, out, "step_00000003: not a complete checkpoint")


def test_a_run_without_an_average_exports_its_weights(new_run: NewRun, tmp_path: Path) -> None:
    run = new_run(ema={"decay": 0.0})
    run("train.steps=1")
    refused(run.folder, tmp_path / "out", r"holds no moving average .* --weights raw", "ema")
    _, card = export_checkpoint(str(run.folder), tmp_path / "out")
    assert card.origin.weights == "raw"
