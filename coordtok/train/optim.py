"""The optimiser of a run: which parameters it updates how, and at what rate.

The learning rate is a function of the step, so nothing about it needs saving. DeepSpeed keeps the
groups in the order in which they are made here.
"""

import math
from typing import Any

import torch
from torch import nn

from coordtok.config.schema import OptimConfig


def parameter_groups(model: nn.Module, optim: OptimConfig) -> list[dict[str, Any]]:
    """The groups of a torch optimiser, each parameter in one of them, with each group's settings
    but for the rate."""
    settings = {"betas": optim.betas, "eps": optim.eps, "weight_decay": optim.weight_decay}
    return [{"params": list(model.parameters()), **settings}]


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    """AdamW (PAPER: training)."""
    return torch.optim.AdamW(parameter_groups(model, optim), lr=optim.lr)


def keep_settings(optimizer: torch.optim.Optimizer, model: nn.Module, optim: OptimConfig) -> None:
    """The run's settings in place of those that came with a checkpoint."""
    for group, wanted in zip(optimizer.param_groups, parameter_groups(model, optim), strict=True):
        group.update({name: value for name, value in wanted.items() if name != "params"})


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
