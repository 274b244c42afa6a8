"""Checkpoints of the former format, written by DeepSpeed itself, become those of this one."""

import json
from json import dumps, loads
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from coordtok import distributed
from coordtok.config.load import load_config, to_dict
from coordtok.config.training import EMAConfig
from coordtok.storage.manifests import measure, write_manifest
from coordtok.train.checkpoint import TrainState, read_state
from coordtok.train.checkpoint_index import read_index
from coordtok.train.ema import EMA
from coordtok.train.engine import build_engine, load_sharding
from coordtok.train.saver import Saver
from tests.support.ranks import call, finish
from tests.train.test_elastic import check_same, train
from tests.train.test_muon import Model


@pytest.mark.parametrize(
    ("json", "zero"),
    [("zero1", {}), ("zero3_fp32", {"stage": 2}), ("zero3", {"sub_group_size": 60})],
    ids=["bf16-optimizer", "zero2", "zero3"],
)
def test_every_number_is_kept(tmp_path: Path, json: str, zero: dict) -> None:
    call(save_both_ways, json, dumps(zero), tmp_path, ranks=2)
    former = tmp_path / "former/step_00000002"
    said = finish("convert_checkpoint.py", former, tmp_path / "converted").output
    assert "the pickles of" in said
    check_same(tmp_path / "present/step_00000002", tmp_path / "converted")
    assert read_index(tmp_path / "converted").optimizer == "MuonAdamW"
    assert read_state(tmp_path / "converted").step == 2
    present = finish("convert_checkpoint.py", tmp_path / "converted", tmp_path / "twice", code=2)
    assert "is not of the former format; train with it as it is" in present.output


def save_both_ways(json: str, zero: str, folder: str) -> None:
    distributed.setup()
    run = load_config("quickstart", ["train.global_batch=4", "optim.name=muon"])
    sharding = load_sharding(json, run, 2).resuming("bfloat16")
    sharding.config["zero_optimization"].update(loads(zero))
    sharding.config["data_types"] = {"grad_accum_dtype": "fp32"}
    engine, masters = build_engine(Model, run, sharding)
    ema = EMA(masters, EMAConfig(decay=0.9))
    train(engine, ema, sharding.dtype)
    state = TrainState(2, 0.0, {}, [], 0, to_dict(run), 2, sharding.stage, "float32", 0.0)
    saver = Saver(Path(folder) / "present", masters, ema, keep_last=0, background=False)
    saver.save(state, 0.0)
    save_former(engine, ema, state, Path(folder) / "former")


def save_former(engine, ema: EMA, state: TrainState, folder: Path) -> None:
    checkpoint = folder / "step_00000002"
    engine.save_checkpoint(str(folder), tag=checkpoint.name, save_latest=False)
    starts = {name: piece.start for name, piece in ema.slices.items()}
    values = {name: torch.clone(piece.values) for name, piece in ema.slices.items()}
    path = checkpoint / f"ema_rank_{distributed.rank():05d}.safetensors"
    save_file(values, path, metadata={"starts": json.dumps(starts)})
    distributed.barrier()
    if distributed.is_main():
        (checkpoint / "state.json").write_text(json.dumps(vars(state)))
        facts = {path.name: measure(path) for path in checkpoint.iterdir()}
        write_manifest(checkpoint / "manifest.json", facts)
    distributed.barrier()
