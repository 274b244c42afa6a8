"""The optimiser of a run: which parameters it updates how, and at what rate.

The learning rate is a function of the step, so nothing about it needs saving. DeepSpeed keeps the
groups in the order in which they are made here.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from coordtok import distributed
from coordtok.config.training import OptimConfig
from coordtok.errors import ConfigError
from coordtok.models.layers import FusedLinear
from coordtok.models.linear_path import LinearDecoder, LinearEncoder
from coordtok.train.masters import Masters
from coordtok.train.muon import MatrixSlice, MuonAdamW

OPTIMIZERS: dict[str, type[torch.optim.AdamW]] = {
    "adamw": torch.optim.AdamW,
    "muon": MuonAdamW,
}


def parameter_groups(model: nn.Module, optim: OptimConfig) -> list[dict[str, Any]]:
    """The groups of a torch optimiser, each parameter in one of them, with each group's settings.

    `rate`: a group's learning rate as a share of that of the run.
    """
    settings = {"betas": optim.betas, "eps": optim.eps, "weight_decay": optim.weight_decay}
    linear_path = {id(each): each for each in _linear_path(model)}
    matrices = {}
    if optim.name == "muon":
        matrices = {id(layer.weight): layer.weight for _, layer in _linear_layers(model)}
    apart = linear_path.keys() | matrices.keys()
    rest = [each for each in model.parameters() if id(each) not in apart]
    groups = [
        (matrices.values(), optim.matrix_lr / optim.lr, True),
        (rest, 1.0, False),
        (linear_path.values(), optim.linear_path_rate, False),
    ]
    return [
        {"params": list(params), "rate": rate, "matrices": is_matrices, **settings}
        for params, rate, is_matrices in groups
        if params
    ]


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (docs/method.md, "Training"), or Muon beside it: then call `attach_matrices` too."""
    groups = parameter_groups(model, optim)
    if optim.name == "adamw" and distributed.device().type == "cuda":  # one kernel, not a dozen
        return torch.optim.AdamW(groups, lr=optim.lr, fused=True)
    return OPTIMIZERS[optim.name](groups, lr=optim.lr)


def attach_matrices(masters: Masters, model: nn.Module) -> None:
    """Tell Muon where an engine's weight matrices lie; all ranks call it together.

    Raises:
        ConfigError: they are offloaded.
    """
    optimizer = masters.optimizer
    if not isinstance(optimizer, MuonAdamW):
        return
    places = masters.places()
    if any(place.values.device.type != distributed.device().type for place in places.values()):
        raise ConfigError(
            "optim.name is muon, which updates no weights that are offloaded; choose a DeepSpeed "
            "JSON without offload, or optim.name=adamw"
        )
    slices = {}
    for name, layer in _linear_layers(model):
        place = places[f"{name}.weight"]
        rows, columns = place.shape
        parts = layer.parts if isinstance(layer, FusedLinear) else 1
        shape = (parts, rows // parts, columns)
        slices[name] = MatrixSlice(shape, place.start, place.values, place.partition)
    optimizer.attach(slices, masters.partition_of)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def learning_rate(optim: OptimConfig, step: int, steps: int) -> float:
    """Rate of the update that makes `step` (1, 2, ..., `steps`): linear warm-up, then constant, or
    a cosine or a constant and a line that reach `min_lr` at the last step."""
    if step <= optim.warmup_steps:
        return optim.lr * step / optim.warmup_steps
    if optim.schedule == "constant":
        return optim.lr
    if optim.schedule == "wsd":
        left = min(1.0, (steps - step) / optim.decay_steps)
        return optim.min_lr + (optim.lr - optim.min_lr) * left
    progress = (step - optim.warmup_steps) / max(steps - optim.warmup_steps, 1)
    return optim.min_lr + (optim.lr - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def _linear_path(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        if isinstance(module, LinearEncoder | LinearDecoder):
            yield from module.parameters()


def _linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """The layers whose weights are matrices, by name."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module
