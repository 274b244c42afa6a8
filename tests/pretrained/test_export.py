"""Exports written, loaded and refused."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from coordtok import CoordTok
from coordtok.errors import CheckpointError, ConfigError, DataError
from coordtok.pretrained.card import read_card
from coordtok.pretrained.write import write_export
from tests.pretrained.conftest import CARD, CONFIG

ROOT = Path(__file__).parents[2]
MakeExport = Callable[..., Path]


def refused(folder: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        CoordTok.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def edit_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def test_a_model_comes_back_bit_for_bit(make_export: MakeExport, tokenizer: CoordTok) -> None:
    folder = make_export()
    model = CoordTok.from_pretrained(folder)
    assert model.config == CONFIG
    assert model.points_per_pass == 12
    assert not model.training
    state = tokenizer.state_dict()
    assert {n: t.dtype for n, t in model.state_dict().items()} == dict.fromkeys(
        state, torch.float32
    )
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    card = read_card(folder)
    assert card == CARD
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert len(list(folder.parent.iterdir())) == 1


def test_weights_in_another_precision(tmp_path: Path, tokenizer: CoordTok) -> None:
    write_export(tmp_path / "low", CARD, tokenizer.state_dict(), torch.bfloat16)
    rounded = {name: tensor.bfloat16() for name, tensor in tokenizer.state_dict().items()}
    for dtype in (None, torch.float32):
        model = CoordTok.from_pretrained(tmp_path / "low", device="cpu", dtype=dtype)
        for name, tensor in model.state_dict().items():
            assert tensor.dtype == (dtype or torch.bfloat16)
            assert torch.equal(tensor, rounded[name].to(tensor.dtype))


def test_using_an_export_needs_no_extra(make_export: MakeExport) -> None:
    """What the extras of setup.cfg bring is missing, as it is after `pip install coordtok`."""
    code = """
import sys
extras = "deepspeed", "webdataset", "wandb", "psutil", "matplotlib", "torchmetrics", "h5py"
sys.modules.update(dict.fromkeys([*extras, "huggingface_hub", "fsspec"]))
import coordtok, torch
model = coordtok.CoordTok.from_pretrained(sys.argv[1])
video = torch.zeros(1, *model.config.video_size, 3, dtype=torch.uint8)
assert model.decode(model.encode(video)).shape == video.shape
assert not {"coordtok.train", "coordtok.data", "torch.distributed.run"} & sys.modules.keys()
"""
    command = [sys.executable, "-c", code, str(make_export())]
    subprocess.run(command, cwd=ROOT, check=True)


def test_others_can_read_what_they_could_read_of_any_new_file(make_export: MakeExport) -> None:
    before = os.umask(0o022)
    try:
        folder = make_export()
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder.position": None}, "decoder.position is missing; export it again"),
        ({"extra": torch.ones(2)}, "extra is no tensor of this model"),
        (
            {"decoder.head.bias": torch.ones(7)},
            r"decoder.head.bias has shape \(7,\), but the model's is \(192,\)",
        ),
    ],
)
def test_tensors_of_another_model(make_export: MakeExport, changes: dict, message: str) -> None:
    refused(make_export(**changes), f"model.safetensors: {message}")


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.int64, "decoder.head.bias is of I64, not one of F64, F32, F16, BF16; export it"),
        (torch.float16, "decoder.head.bias is of F16, but decoder.blocks.* of F32; export it"),
    ],
)
def test_tensors_of_another_dtype(
    make_export: MakeExport, dtype: torch.dtype, message: str
) -> None:
    path = make_export() / "model.safetensors"
    weights = load_file(path)
    save_file({**weights, "decoder.head.bias": torch.ones(192, dtype=dtype)}, path)
    refused(path.parent, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "has version 2 of the export format; coordtok .* reads up to 1: update"),
        ({"version": "1"}, "has version 1 of the export format"),
        ({"kind": "moebius"}, "is of kind 'moebius'; coordtok .* knows coordtok, dit: update"),
        ({"format": "other"}, "is not of an export of this project"),
        (
            {"model": {"dim": 16, "hedas": 2}},
            r"unknown key model.hedas \(did you mean model.heads",
        ),
        ({"model": {"dim": "wide"}}, "model.dim is 'wide'; it must be of type int"),
        ({"model": {"dim": 30}}, "model.dim is 30, which model.heads 16 does not divide"),
        ({"model": 3}, "lacks the section 'model'"),
        ({"settings": {"points_per_pass": 0}}, "settings.points_per_pass is 0; it must be between"),
        ({"origin": {"weights": "best"}}, "origin.weights is 'best'; it must be one of raw, ema"),
    ],
)
def test_configs_that_cannot_be_used(make_export: MakeExport, changes: dict, message: str) -> None:
    refused(edit_config(make_export(), **changes), message)


@pytest.mark.parametrize("section", ["model", "settings", "origin"])
def test_a_config_without_a_section(make_export: MakeExport, section: str) -> None:
    folder = make_export()
    path = folder / "config.json"
    stored = json.loads(path.read_text())
    del stored[section]
    path.write_text(json.dumps(stored))
    refused(folder, f"config.json lacks the section '{section}'")


def test_a_config_of_endless_brackets(make_export: MakeExport) -> None:
    folder = make_export()
    (folder / "config.json").write_text("[" * 100_000)
    refused(folder, "is not readable JSON")


def test_folders_that_are_no_exports(make_export: MakeExport, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere: no such folder; name an export")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "empty has no config.json")
    folder = make_export()
    refused(folder / "config.json", "config.json is a file; name the folder")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    refused(tmp_path / "run", r"run is not exported yet: python scripts/export.py .*run OUT_DIR")
    (folder / "model.safetensors").unlink()
    refused(folder, "has no model.safetensors")
    (folder / "config.json").write_text("{half")
    refused(folder, "config.json is not readable JSON")
    (folder / "config.json").write_bytes(b"\xff\xfe")
    refused(folder, "config.json is not readable JSON")


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_damaged_weights(make_export: MakeExport, size: int) -> None:
    path = make_export() / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(path.parent, "model.safetensors is damaged")


def test_a_device_that_is_not_here(make_export: MakeExport) -> None:
    with pytest.raises(ConfigError, match=r"device nonsense cannot be used .*; choose another"):
        CoordTok.from_pretrained(make_export(), device="nonsense")


def test_an_export_is_replaced_only_when_asked(make_export: MakeExport, tokenizer) -> None:
    folder = make_export()
    with pytest.raises(CheckpointError, match=r"already holds an export; .* --overwrite"):
        write_export(folder, CARD, tokenizer.state_dict())
    changed = {name: tensor + 1 for name, tensor in tokenizer.state_dict().items()}
    loaded = CoordTok.from_pretrained(folder)  # still in use while it is replaced
    write_export(folder, CARD, changed, overwrite=True)
    for name, tensor in CoordTok.from_pretrained(folder).state_dict().items():
        assert torch.equal(tensor, changed[name])
        assert torch.equal(loaded.state_dict()[name], tokenizer.state_dict()[name])
    assert len(list(folder.parent.iterdir())) == 1


def test_nothing_but_an_export_is_ever_replaced(make_export: MakeExport, tokenizer) -> None:
    folder = make_export()
    (folder / "notes.txt").write_text("mine")
    other = folder.parent / "other"
    other.mkdir()
    (other / "config.json").write_text('{"format": "of another project"}')
    for target, held in ((folder, "notes.txt"), (other, "a config.json of something else")):
        with pytest.raises(CheckpointError, match=f"holds {held} and is not replaced"):
            write_export(target, CARD, tokenizer.state_dict(), overwrite=True)
    with pytest.raises(CheckpointError, match="is a file; name a new folder"):
        write_export(folder / "notes.txt", CARD, tokenizer.state_dict(), overwrite=True)
    assert (folder / "notes.txt").read_text() == "mine"
    CoordTok.from_pretrained(folder)


def test_an_empty_folder_is_filled_and_parents_are_made(tmp_path: Path, tokenizer) -> None:
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "empty", tmp_path / "a" / "b"):
        write_export(target, CARD, tokenizer.state_dict())
        CoordTok.from_pretrained(target)


def test_a_failed_write_leaves_what_was_there(make_export, tokenizer, monkeypatch) -> None:
    folder = make_export()
    before = (folder / "model.safetensors").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coordtok.pretrained.write.save_file", full)
    for target in (folder, folder.parent / "new"):
        with pytest.raises(DataError, match=r"cannot write .*No space left on device"):
            write_export(target, CARD, tokenizer.state_dict(), overwrite=True)
    assert (folder / "model.safetensors").read_bytes() == before
    assert list(folder.parent.iterdir()) == [folder]


def test_weights_of_a_diverged_run_are_not_exported(make_export: MakeExport, tmp_path) -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(CheckpointError, match=r"decoder.head.bias holds .* not finite"):
            make_export(**{"decoder.head.bias": torch.full((192,), value)})
    assert list(tmp_path.iterdir()) == []
