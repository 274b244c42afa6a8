"""Parameter groups, their settings and the learning rate."""

from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

from coordtok.config.training import EMAConfig, OptimConfig
from coordtok.errors import ConfigError
from coordtok.storage.slice_files import Span
from coordtok.train.ema import ema_decay
from coordtok.train.masters import Masters, Place, Position
from coordtok.train.optim import attach_matrices, build_optimizer, learning_rate


def test_the_rate_warms_up_then_stays_or_follows_a_cosine() -> None:
    constant = OptimConfig(lr=1.0, warmup_steps=4)
    assert [learning_rate(constant, s, 10) for s in (1, 2, 4, 5, 10)] == [0.25, 0.5, 1, 1, 1]
    cosine = OptimConfig(lr=1.0, schedule="cosine", warmup_steps=2, min_lr=0.2)
    rates = [learning_rate(cosine, step, 10) for step in range(1, 11)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[5] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2)
    assert rates[1:] == sorted(rates[1:], reverse=True)


def test_wsd_is_constant_and_then_falls_in_a_line_over_its_last_steps() -> None:
    wsd = OptimConfig(lr=1.0, schedule="wsd", warmup_steps=2, decay_steps=4, min_lr=0.2)
    rates = [learning_rate(wsd, step, 10) for step in range(1, 11)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    longer = [learning_rate(wsd, step, 20) for step in range(1, 7)]
    assert longer == rates[:6], "runs of other lengths share their beginning"


def test_an_average_keeps_less_while_it_is_young() -> None:
    assert [ema_decay(EMAConfig(0.9), step) for step in (1, 100)] == [0.9, 0.9]
    young = [ema_decay(EMAConfig(0.9, warmup=True), step) for step in (1, 10, 79, 80, 100)]
    assert young == pytest.approx([2 / 11, 11 / 20, 80 / 89, 0.9, 0.9])


def test_every_parameter_is_in_one_group() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    grouped = [
        each
        for group in build_optimizer(model, OptimConfig()).param_groups
        for each in group["params"]
    ]
    assert len(grouped) == 4
    assert {id(each) for each in grouped} == {id(each) for each in model.parameters()}


def test_muon_refuses_offloaded_matrices() -> None:
    masters = SimpleNamespace(
        optimizer=build_optimizer(nn.Linear(2, 3), OptimConfig("muon")),
        places=lambda: {"weight": Place(torch.Size([3, 2]), 0, 0, torch.empty(6, device="meta"))},
    )
    with pytest.raises(ConfigError, match=r"optim.name is muon, which updates no weights that are"):
        attach_matrices(cast(Masters, masters), nn.Linear(2, 3))


@pytest.mark.parametrize("fused", [False, True])
def test_counts_of_steps_come_back_where_the_optimiser_keeps_them(fused: bool) -> None:
    flat = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([flat], fused=fused)
    flat.grad = torch.ones(3)
    optimizer.step()
    masters = object.__new__(Masters)
    masters._optimizer = SimpleNamespace(optimizer=optimizer)
    masters._flat, masters._layouts = [flat], {"w": None}
    masters._positions = {"w": Position(0, 0, Span(0, 3))}
    counts, states = masters.counts(), {"w": list(masters.states())}
    masters.make_states(states, counts)
    assert masters.counts() == counts == {"w": {"step": 1.0}}
    optimizer.step()
    assert masters.counts() == {"w": {"step": 2.0}}
