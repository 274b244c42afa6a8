"""Parameter groups, their settings and the learning rate."""

import pytest
import torch
from torch import nn

from coordtok.config.training import EMAConfig, OptimConfig
from coordtok.train.ema import ema_decay
from coordtok.train.optim import build_optimizer, keep_settings, learning_rate


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


def test_settings_are_the_runs_and_states_the_checkpoints() -> None:
    model = nn.Linear(2, 3)
    saved = build_optimizer(model, OptimConfig(weight_decay=0.5, betas=(0.8, 0.9)))
    model(torch.ones(1, 2)).sum().backward()
    saved.step()
    wanted = OptimConfig(weight_decay=0.25, eps=1e-6)
    going_on = build_optimizer(model, wanted)
    going_on.load_state_dict(saved.state_dict())
    assert going_on.param_groups[0]["weight_decay"] == 0.5
    keep_settings(going_on, model, wanted)
    (group,) = going_on.param_groups
    assert (group["weight_decay"], group["eps"], group["betas"]) == (0.25, 1e-6, (0.9, 0.999))
    assert all(
        torch.equal(state["exp_avg"], saved.state[parameter]["exp_avg"])
        for parameter, state in going_on.state.items()
    )
