"""Parameters and FLOPs by formula are those of the models that are built and run."""

import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from coordtok.benchmarks.counted import built, counted_flops
from coordtok.config.load import load_config, preset_names
from coordtok.scaling.flops import clip_flops, training_step_flops
from coordtok.scaling.operations import attention, product
from coordtok.scaling.parameters import matrices, parameters, shapes
from coordtok.train.muon import orthogonalise


@pytest.mark.parametrize("name", preset_names())
def test_weights_are_those_of_the_built_model(name: str) -> None:
    config = load_config(name).model
    found = {name: tuple(each.shape) for name, each in built(config).named_parameters()}
    assert list(shapes(config).items()) == list(found.items())
    assert sum(parameters(config).values()) == sum(map(math.prod, found.values()))


def test_the_linear_path_counts() -> None:
    config = load_config("quickstart").model
    model = built(config)
    found = {name: each.numel() for name, each in model.named_parameters() if ".linear." in name}
    assert parameters(config)["linear path"] == sum(found.values())


@pytest.mark.parametrize("name", ["quickstart", "tokenizer_film", "dit_tiny"])
def test_matrices_are_those_that_muon_orthogonalises(name: str) -> None:
    config = load_config(name).model
    model = built(config)
    found = [
        (layer.out_features // getattr(layer, "parts", 1), layer.in_features)
        for layer in model.modules()
        if isinstance(layer, torch.nn.Linear)
        for _ in range(getattr(layer, "parts", 1))
    ]
    assert sorted(matrices(config)) == sorted(found)


def test_muon_costs_products_of_its_matrices() -> None:
    run = load_config("tokenizer_tiny")
    muon = load_config("tokenizer_tiny", ["optim.name=muon"])
    more = training_step_flops(muon).optimizer - training_step_flops(run).optimizer
    assert more == sum(map(_counted_newton_schulz, matrices(run.model)))


def _counted_newton_schulz(shape: tuple[int, int]) -> int:
    with FlopCounterMode(display=False) as counter:
        orthogonalise(torch.zeros(1, *shape))
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["quickstart", "tokenizer_tiny", "tokenizer_film", "dit_tiny"])
def test_operations_are_those_that_torch_counts(name: str) -> None:
    """Within 1 %, forwards and backwards; `scaling.py check flops` takes every preset."""
    run = load_config(name)
    expected = sum(part.total for part in clip_flops(run).values())
    assert expected == pytest.approx(counted_flops(run), rel=0.01)


def test_a_step_is_all_clips_and_what_is_recomputed_and_the_update() -> None:
    run = load_config("tokenizer_tiny")
    plain = training_step_flops(run)
    twice = training_step_flops(replace(run, train=replace(run.train, global_batch=16)))
    assert twice.forward == 2 * plain.forward
    assert twice.optimizer == plain.optimizer == 14 * sum(parameters(run.model).values())
    recomputing = load_config("tokenizer_tiny", ["train.activation_checkpointing=true"])
    assert 0.45 * plain.forward < training_step_flops(recomputing).recomputed < 0.5 * plain.forward


@pytest.mark.parametrize("name", ["tokenizer_tiny", "tokenizer_s_recipe", "dit_tiny"])
@pytest.mark.parametrize("kind", ["true", "selective"])
def test_recomputed_operations_are_those_that_torch_counts(name: str, kind: str) -> None:
    """What a backward pass makes beyond that of a run that keeps everything."""
    plain = load_config(name)
    run = load_config(name, [f"train.activation_checkpointing={kind}"])
    expected = training_step_flops(run).recomputed / run.train.global_batch
    assert expected == pytest.approx(counted_flops(run) - counted_flops(plain), rel=0.02)


def test_products_count_twice_and_backward_twice_more() -> None:
    assert product(3, 4, 5).forward == 2 * 3 * 4 * 5
    assert product(3, 4, 5).backward == 2 * product(3, 4, 5).forward
    assert product(3, 4, 5, input_gradient=False).backward == product(3, 4, 5).forward
    assert attention(3, 7, 8).forward == 2 * (2 * 3 * 7 * 8)
    assert product(3, 4, 5, times=6).forward == 6 * product(3, 4, 5).forward
