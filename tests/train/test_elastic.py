"""What one number of ranks saves, any other reads: at every stage, precision and optimiser."""

from json import dumps, loads
from pathlib import Path
from typing import Any

import pytest
import torch

from coordtok import distributed
from coordtok.config.load import load_config
from coordtok.config.training import EMAConfig
from coordtok.scaling.checkpoints import checkpoint_costs, zero_layouts
from coordtok.storage.slice_layout import load_cost, runs_of
from coordtok.train import optim
from coordtok.train.checkpoint import TrainState, read_whole, restore
from coordtok.train.checkpoint_index import read_index
from coordtok.train.ema import EMA
from coordtok.train.engine import build_engine, load_sharding
from coordtok.train.saver import Saver
from tests.support.ranks import call
from tests.train.test_muon import Model, batch, loss_of

OFFLOAD = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
CHAIN = [
    (1, "zero3_fp32", {"stage": 1}),
    (2, "zero3_fp32", {"stage": 2}),
    (4, "zero3", {"sub_group_size": 60}),
    (2, "zero1", {}),
    (1, "zero3_offload", OFFLOAD),
    (2, "zero3_fp32", {"stage": 1}),
]
"""Ranks, DeepSpeed JSON and what is changed in its zero_optimization. zero1 in bf16 is DeepSpeed's
BF16_Optimizer, as gradients are accumulated in fp32; the others are its ZeRO optimizers."""


@pytest.mark.parametrize(
    ("name", "hops"), [("muon", 6), ("sgd", 2), pytest.param("adamw", 6, marks=pytest.mark.slow)]
)
def test_every_number_arrives_wherever_it_goes(tmp_path: Path, name: str, hops: int) -> None:
    for number, (ranks, json, zero) in enumerate(CHAIN[:hops]):
        call(hop, name, json, dumps(zero), tmp_path, number, ranks=ranks)


def hop(name: str, json: str, zero: str, folder: str, number: str) -> None:
    """Go on from the hop before: save what was restored, then what three updates make of it."""
    distributed.setup()
    run = load_config(
        "quickstart", ["train.global_batch=4", f"optim.name={name.replace('sgd', 'adamw')}"]
    )
    if name == "sgd":
        optim.OPTIMIZERS["adamw"] = with_momentum  # type: ignore[assignment]
    sharding = load_sharding(json, run, distributed.world_size()).resuming("bfloat16")
    sharding.config["zero_optimization"].update(loads(zero))
    sharding.config["data_types"] = {"grad_accum_dtype": "fp32"}
    engine, masters = build_engine(Model, run, sharding)
    ema = EMA(masters, EMAConfig(decay=0.9))
    own = Path(folder) / number
    saver = Saver(own, masters, ema, keep_last=0, background=int(number) % 2 == 0)
    if int(number):
        source = Path(folder) / str(int(number) - 1) / "step_00000002"
        cost = restore(source, masters, ema)
        saver.save(state(1), 0.0)
        check_costs(source, masters, distributed.gather(cost))
    train(engine, ema, sharding.dtype)
    saver.save(state(2), 0.0)
    saver.finish()
    if distributed.is_main():
        if int(number):
            check_same(source, own / "step_00000001")
        check_plan(own / "step_00000002", masters, run, sharding.stage)
    distributed.barrier()


def with_momentum(groups: list[dict[str, Any]], lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(groups, lr=lr, momentum=0.9)


def state(step: int) -> TrainState:
    return TrainState(step, 0.0, {}, [], 0, {}, distributed.world_size(), 3, "float32", 0.0)


def train(engine, ema: EMA, dtype: torch.dtype) -> None:
    rank, ranks = distributed.rank(), distributed.world_size()
    for step in range(3):
        output = engine(batch(step)[:1].expand(4, -1, -1)[rank::ranks].to(dtype))
        engine.backward(loss_of(output.float()[:1].expand(2, -1, -1), step))
        engine.step()
        ema.update(step)


def check_same(source: Path, copy: Path) -> None:
    """Every number of every kind, bit for bit."""
    there, here = read_index(source), read_index(copy)
    kinds = {kind for each in there.parameters.values() for kind in each.kinds}
    assert len(kinds) >= 3
    for name, parameter in there.parameters.items():
        assert here.parameters[name].counts == parameter.counts
        assert set(here.parameters[name].kinds) == set(parameter.kinds)
    for kind in kinds:
        expected, found = read_whole(source, kind), read_whole(copy, kind)
        assert expected
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def check_costs(source: Path, masters, costs: list) -> None:
    """Real ranks open and read what the plan of loading says."""
    index = read_index(source)
    headers = [
        header_size(source / f"rank_{rank:05d}.safetensors") for rank in range(len(index.files))
    ]
    kinds = {name: parameter.kinds for name, parameter in index.parameters.items()}
    for cost, layout in zip(costs, distributed.gather(masters.layout)):
        assert cost == load_cost(index.runs, headers, layout, kinds)


def header_size(path: Path) -> int:
    with open(path, "rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def check_plan(checkpoint: Path, masters, run, stage: int) -> None:
    """Real engines own and write what the plan of saving says."""
    model, index = Model(), read_index(checkpoint)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [
        {names[id(each)]: each.numel() for each in group["params"]}
        for group in optim.parameter_groups(model, run.optim)
    ]
    on = (distributed.world_size(), stage)
    layouts = zero_layouts(groups, *on)
    assert {name: list(runs) for name, runs in index.runs.items()} == runs_of(layouts)
    assert layouts[0] == masters.layout
    kinds = {name: parameter.kinds for name, parameter in index.parameters.items()}
    costs = checkpoint_costs(groups, kinds, on, on)
    assert [cost.bytes for cost in costs.saved] == [facts.bytes for facts in index.files]
