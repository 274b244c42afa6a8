"""Muon beside AdamW: what runs under DeepSpeed is what was configured."""

from json import dumps, loads
from pathlib import Path

import pytest
import torch
from torch import nn

from coordtok import distributed
from coordtok.config.load import load_config
from coordtok.config.training import OptimConfig
from coordtok.models.layers import FusedLinear, ViTBlock
from coordtok.train.engine import build_engine, load_sharding
from coordtok.train.muon import MOMENTUM, orthogonalise
from coordtok.train.optim import build_optimizer, parameter_groups, set_rate
from tests.support.ranks import ROOT, call

OPTIM = OptimConfig("muon", matrix_lr=0.05, lr=3e-3, weight_decay=0.1, grad_clip=0.0)
STEPS = 20


class Model(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Linear(6, 8), ViTBlock(8, 2, 2.0, qkv_bias=False), nn.Linear(8, 3, bias=False)
        )


def batch(step: int) -> torch.Tensor:
    return torch.randn((2, 4, 6), generator=torch.Generator().manual_seed(step))


def loss_of(output: torch.Tensor, step: int) -> torch.Tensor:
    return (output - batch(step)[..., :3].sin()).square().mean()


def train_plainly() -> dict[str, torch.Tensor]:
    """`STEPS` updates in one process without DeepSpeed: Muon written out, beside torch's AdamW."""
    torch.manual_seed(0)
    model = Model()
    weights = {f"{n}.weight": m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    others = [each for name, each in model.named_parameters() if name not in weights]
    adamw = torch.optim.AdamW(others, lr=OPTIM.lr, betas=OPTIM.betas, weight_decay=0.1)
    momenta = {name: torch.zeros_like(layer.weight) for name, layer in weights.items()}
    for step in range(STEPS):
        model.zero_grad()
        loss_of(model(batch(step)), step).backward()
        adamw.step()
        with torch.no_grad():
            for name, layer in weights.items():
                update_plainly(layer, momenta[name])
    return {name: value.detach() for name, value in model.named_parameters()}


def update_plainly(layer: nn.Linear, momentum: torch.Tensor) -> None:
    gradient = layer.weight.grad
    momentum.mul_(MOMENTUM).add_(gradient, alpha=1 - MOMENTUM)
    direction = (1 - MOMENTUM) * gradient + MOMENTUM * momentum
    layer.weight.mul_(1 - OPTIM.matrix_lr * OPTIM.weight_decay)
    parts = layer.parts if isinstance(layer, FusedLinear) else 1
    for weight, part in zip(layer.weight.chunk(parts), direction.chunk(parts)):
        rows, columns = part.shape
        update = orthogonalise(part[None])[0] * max(1, rows / columns) ** 0.5
        weight.sub_(update, alpha=OPTIM.matrix_lr)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (6, 6)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn((2, *shape), generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.einsum("mri,mrc,mic->mi", left, orthogonalise(matrix), right)
    assert ((values > 0.5) & (values < 1.3)).all()
    assert torch.linalg.svdvals(orthogonalise(matrix)).sum() == pytest.approx(
        values.sum().item(), rel=1e-3
    )


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_parameter_is_in_one_group(name: str) -> None:
    model = Model()
    groups = parameter_groups(model, OptimConfig(name))  # type: ignore[arg-type]
    found = [id(each) for group in groups for each in group["params"]]
    assert sorted(found) == sorted(map(id, model.parameters()))
    if name == "muon":
        assert {each.ndim for each in groups[0]["params"]} == {2}
        assert len(groups[0]["params"]) == 6


def test_groups_follow_one_schedule_at_their_own_rates() -> None:
    optimizer = build_optimizer(Model(), OPTIM)
    set_rate(optimizer, OPTIM.lr / 2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.025, 1.5e-3])


@pytest.mark.parametrize(
    ("ranks", "json", "zero"),
    [
        (1, "zero3_fp32", {}),
        (2, "zero3_fp32", {}),
        (2, "zero3_fp32", {"stage": 1}),
        (2, "zero3_fp32", {"stage": 2}),
        (2, "zero3_fp32", {"sub_group_size": 60}),
    ],
    ids=["one-rank", "zero3", "zero1", "zero2", "sub-groups"],
)
def test_twenty_steps_are_those_of_one_process_without_deepspeed(
    tmp_path: Path, ranks: int, json: str, zero: dict
) -> None:
    call(train_rank, json, dumps(zero), tmp_path / "weights", ranks=ranks)
    found = torch.load(tmp_path / "weights")
    for name, value in train_plainly().items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=0, msg=name)


def train_rank(json: str, zero: str, path: str) -> None:
    distributed.setup()
    rank, ranks = distributed.rank(), distributed.world_size()
    optim = ["optim.name=muon", "optim.matrix_lr=0.05", "optim.lr=3e-3", "optim.weight_decay=0.1"]
    run = load_config("quickstart", [*optim, "train.global_batch=2", "optim.schedule=constant",
                                     "optim.grad_clip=0", "optim.betas=[0.9,0.999]"])  # fmt: skip
    sharding = load_sharding(str(ROOT / f"ds_configs/{json}.json"), run, ranks)
    sharding.config["zero_optimization"].update(loads(zero))
    engine, masters = build_engine(Model, run, sharding)
    own = slice(rank, None, ranks) if ranks > 1 else slice(None)
    for step in range(STEPS):
        set_rate(engine.optimizer, run.optim.lr)
        output = engine(batch(step)[own])
        engine.backward((output - batch(step)[own][..., :3].sin()).square().mean())
        engine.step()
    slices = distributed.gather(masters.slices())
    if rank == 0:
        torch.save(_put_together(slices, masters.shapes), path)
    distributed.barrier()


def _put_together(slices: list, shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    whole = {}
    for name, shape in shapes.items():
        pieces = sorted((each[name] for each in slices if name in each), key=lambda p: p.start)
        whole[name] = torch.cat([piece.values for piece in pieces]).view(shape)
    return whole
