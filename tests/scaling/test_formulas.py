"""Parameters and FLOPs by formula are those of the models that are built and run."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from coordtok.config.load import load_config, preset_names
from coordtok.config.models import ModelConfig
from coordtok.config.schema import RunConfig
from coordtok.geometry.planes import unpack
from coordtok.models import linear_path
from coordtok.models.dit import TriplaneDiT
from coordtok.models.tokenizer import CoordTok
from coordtok.scaling.flops import clip_flops, training_step_flops
from coordtok.scaling.operations import attention, product
from coordtok.scaling.parameters import matrices, parameters, shapes
from coordtok.train.muon import orthogonalise


@pytest.mark.parametrize("name", preset_names())
def test_parameters_are_those_of_the_built_model(name: str) -> None:
    config = load_config(name).model
    with torch.device("meta"):
        model = build_model(config)
    found = {name: tuple(each.shape) for name, each in model.named_parameters()}
    assert list(shapes(config).items()) == list(found.items())
    assert sum(parameters(config).values()) == sum(map(math.prod, found.values()))


def test_the_linear_path_counts() -> None:
    config = load_config("quickstart").model
    with torch.device("meta"):
        model = build_model(config)
    found = {name: each.numel() for name, each in model.named_parameters() if ".linear." in name}
    assert parameters(config)["linear path"] == sum(found.values())
    assert sum(parameters(config).values()) == sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("name", ["quickstart", "tokenizer_film", "dit_tiny"])
def test_matrices_are_those_that_muon_orthogonalises(name: str) -> None:
    config = load_config(name).model
    with torch.device("meta"):
        model = build_model(config)
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
def test_operations_are_those_that_torch_counts(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Within 1 %. The linear path is decoded as on a GPU, where nothing is filled up. Attention is
    plain products here, which torch counts on a CPU: backward it makes four for two and not
    five, so that half a product is taken off for each."""
    monkeypatch.setattr(linear_path, "_products_by_place", products_alone)
    run = load_config(name)
    with FlopCounterMode(display=False) as forward, sdpa_kernel(SDPBackend.MATH):
        result = _run_model(run)
    with FlopCounterMode(display=False) as backward, sdpa_kernel(SDPBackend.MATH):
        result.square().mean().backward()
    parts = clip_flops(run).values()
    assert sum(part.forward for part in parts) == pytest.approx(forward.get_total_flops(), rel=0.01)
    recomputed = 0.5 * sum(_attention(run))
    expected = sum(part.backward for part in parts) - recomputed
    assert expected == pytest.approx(backward.get_total_flops(), rel=0.01)


def test_a_step_is_all_clips_and_what_is_recomputed_and_the_update() -> None:
    run = load_config("tokenizer_tiny")
    plain = training_step_flops(run)
    twice = training_step_flops(replace(run, train=replace(run.train, global_batch=16)))
    assert twice.forward == 2 * plain.forward
    assert twice.optimizer == plain.optimizer == 14 * sum(parameters(run.model).values())
    recomputing = load_config("tokenizer_tiny", ["train.activation_checkpointing=true"])
    assert 0.5 * plain.forward < training_step_flops(recomputing).recomputed < plain.forward


def test_products_count_twice_and_backward_twice_more() -> None:
    assert product(3, 4, 5).forward == 2 * 3 * 4 * 5
    assert product(3, 4, 5).backward == 2 * product(3, 4, 5).forward
    assert product(3, 4, 5, input_gradient=False).backward == product(3, 4, 5).forward
    assert attention(3, 7, 8).forward == 2 * (2 * 3 * 7 * 8)
    assert product(3, 4, 5, times=6).forward == 6 * product(3, 4, 5).forward


def build_model(config: ModelConfig) -> CoordTok | TriplaneDiT:
    return CoordTok(config) if config.name == "coordtok" else TriplaneDiT(config)


def products_alone(
    read_BNC: torch.Tensor, within_BN: torch.Tensor, synthesis_KCQ: torch.Tensor
) -> torch.Tensor:
    return (read_BNC.unsqueeze(-2) @ synthesis_KCQ[within_BN]).squeeze(-2)


def _run_model(run: RunConfig) -> torch.Tensor:
    torch.manual_seed(0)
    model = build_model(run.model)
    if isinstance(model, TriplaneDiT):
        planes = unpack(torch.randn(1, run.model.latent.numbers), run.model.latent)
        return torch.cat([each.flatten() for each in model(planes, torch.rand(1))])
    video = torch.zeros((1, *run.model.video_size, 3), dtype=torch.uint8)
    return model(video, torch.zeros((1, run.train.points, 3), dtype=torch.int64))


def _attention(run: RunConfig) -> list[float]:
    """Forward operations of every attention of a clip."""
    model = run.model
    if model.name == "dit":
        tokens = sum(model.latent.tokens)
        return [model.layers * attention(tokens, tokens, model.dim).forward]
    frames, height, width = (a // b for a, b in zip(model.video_size, model.video_patch))
    memory, tokens = frames * height * width, sum(model.latent.tokens)
    pairs = [
        (model.video_layers, memory + 1, memory + 1),
        (model.plane_layers, tokens, memory + tokens),
        (model.decoder_layers, run.train.points, run.train.points),
    ]
    return [layers * attention(q, k, model.dim).forward for layers, q, k in pairs]
