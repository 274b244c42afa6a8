"""The diffusion transformer: what it depends on, how it starts, and what it refuses."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from coordtok import Triplane, TriplaneDiT
from coordtok.config.models import DiTModelConfig
from coordtok.errors import CheckpointError, DataError
from coordtok.geometry.planes import unpack
from coordtok.models.conditioning import (
    TimeEmbedding,
    sincos_table,
    time_features,
)
from coordtok.pretrained.card import Card, GeneratorSettings, Origin
from coordtok.pretrained.write import write_export

# Planes of three sizes, none square, so that mixed-up axes show.
ODD = DiTModelConfig(
    plane_size=(8, 4, 6), plane_channels=3, patch=2, dim=32, heads=2, layers=2, classes=5
)


def random_planes(config: DiTModelConfig, seed: int = 1, batch: int = 2) -> Triplane:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(batch, config.latent.numbers, generator=generator)
    return unpack(numbers, config.latent)


@pytest.fixture
def model() -> TriplaneDiT:
    """One in which every weight says something: what adaLN-Zero starts at zero does not."""
    torch.manual_seed(0)
    model = TriplaneDiT(ODD).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


TIME = torch.tensor([0.25, 0.75])


def differ(left: Triplane, right: Triplane) -> list[bool]:
    return [not torch.equal(a, b) for a, b in zip(left, right)]


@torch.no_grad()
def test_a_fresh_model_predicts_zero_of_the_right_shapes() -> None:
    planes = random_planes(ODD)
    for plane, velocity in zip(planes, TriplaneDiT(ODD)(planes, TIME)):
        assert velocity.shape == plane.shape
        assert velocity.dtype == torch.float32
        assert not velocity.any()


@torch.no_grad()
def test_each_plane_depends_on_all_planes_the_time_and_the_label(model: TriplaneDiT) -> None:
    planes = random_planes(ODD)
    label = torch.tensor([1, 2])
    before = model(planes, TIME, label)
    for name, plane in planes._asdict().items():
        changed = plane.clone()
        changed[:, -1, -1, -1] += 1
        assert all(differ(before, model(planes._replace(**{name: changed}), TIME, label))), name
    assert all(differ(before, model(planes, TIME + 0.001, label)))
    assert all(differ(before, model(planes, TIME, label + 1)))


@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other(model: TriplaneDiT) -> None:
    planes, label = random_planes(ODD), torch.tensor([3, -1])
    together = model(planes, TIME, label)
    for clip in (0, 1):
        part = slice(clip, clip + 1)
        alone = model(planes.map(lambda plane, part=part: plane[part]), TIME[part], label[part])
        for one, many in zip(alone, together):
            torch.testing.assert_close(one, many[part], atol=1e-5, rtol=0)


@torch.no_grad()
def test_no_label_is_the_last_row(model: TriplaneDiT) -> None:
    planes = random_planes(ODD)
    none = model(planes, TIME)
    assert not any(differ(none, model(planes, TIME, torch.tensor([-1, -1]))))
    assert all(differ(none, model(planes, TIME, torch.tensor([4, 4]))))
    model.label.weight[:-1].zero_()
    assert not any(differ(none, model(planes, TIME)))


@torch.no_grad()
def test_tokens_are_patches_of_rows_then_columns_then_channels(model: TriplaneDiT) -> None:
    """A velocity of head bias alone: patch row, patch column, channel."""
    bias = torch.arange(2 * 2 * 3, dtype=torch.float32)
    for velocity in model.velocities:
        velocity.head.weight.zero_()
        velocity.head.bias.copy_(bias)
    for plane in model(random_planes(ODD), TIME):
        rows, columns = plane.shape[1:3]
        tiled = bias.view(2, 2, 3).repeat(rows // 2, columns // 2, 1)
        assert torch.equal(plane[0], tiled)


def test_activation_checkpointing_changes_no_gradient(model: TriplaneDiT) -> None:
    planes = random_planes(ODD)

    def gradients() -> list[torch.Tensor]:
        loss = sum(plane.square().sum() for plane in model(planes, TIME, torch.tensor([0, 1])))
        return list(torch.autograd.grad(loss, list(model.parameters())))

    plain = gradients()
    for kind in (True, "selective"):
        model.set_activation_checkpointing(kind)
        assert all(torch.equal(a, b) for a, b in zip(plain, gradients()))
    assert all(gradient.any() for gradient in plain)


@torch.no_grad()
def test_bfloat16_weights_give_float32_and_keep_the_time_exact(model: TriplaneDiT) -> None:
    planes = random_planes(ODD)
    exact = model(planes, TIME)
    half = model.to(torch.bfloat16)
    for mine, other in zip(half(planes, TIME), exact):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, atol=0.1, rtol=0.1)
    near, far = half.time(torch.tensor([0.9, 0.9005]))
    assert near.dtype == torch.float32
    assert not torch.equal(near, far)


def test_time_features_are_the_releases() -> None:
    time = torch.tensor([0.0, 0.3, 1.0])
    frequency = np.exp(-np.log(10_000) * np.arange(128) / 128)
    angle = time.numpy()[:, None] * frequency
    expected = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    np.testing.assert_allclose(time_features(time), expected, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert TimeEmbedding(16)(time).dtype == torch.float32


def test_every_place_of_a_plane_has_its_own_position() -> None:
    table = sincos_table(3, 5, 16)
    assert table.shape == (15, 16)
    assert len(table.unique(dim=0)) == 15
    by_place = table.view(3, 5, 16)
    assert torch.equal(by_place[1, :, :8], by_place[1, :1, :8].expand(5, 8))  # of the row alone
    assert torch.equal(by_place[:, 2, 8:], by_place[:1, 2, 8:].expand(3, 8))
    assert not sincos_table(2, 2, 18)[:, 16:].any()  # what 4 does not divide


def test_parameters_are_what_the_release_has_and_one_table_more() -> None:
    """CoordTok-SiT-L/2: the shapes of docs/official_weights.md, less the output channels it does
    not use; yt and xt each have the table that they share there."""
    d, layers, released, unused, table = 1024, 24, 461_462_720, 3 * 32 * 1025, 128 * 1024
    with torch.device("meta"):
        model = TriplaneDiT(DiTModelConfig(dim=d, heads=16, layers=layers))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == released - unused + table


def test_weights_are_drawn_where_their_module_is_made(monkeypatch) -> None:
    """Else `zero.Init`, which partitions a module right after its __init__, would miss them."""
    monkeypatch.setattr(nn.Module, "apply", None)
    torch.manual_seed(0)
    first = TriplaneDiT(ODD).state_dict()
    assert all(tensor.isfinite().all() for tensor in first.values())
    zero = {name for name, tensor in first.items() if not tensor.any()}
    assert zero == {name for name in first if ".modulation." in name or ".head." in name}


def test_latents_of_another_shape_are_refused(model: TriplaneDiT) -> None:
    planes = random_planes(dataclasses.replace(ODD, plane_size=(8, 4, 4)))
    with pytest.raises(DataError, match=r"plane xy has shape \(2, 4, 4, 3\); this model's are"):
        model(planes, TIME)


def exported(model: TriplaneDiT, folder: Path, channels: int = 3, std: float = 2.0) -> Path:
    statistics = {
        "mean": {name: [0.5] * channels for name in Triplane._fields},
        "std": {name: [std] * channels for name in Triplane._fields},
    }
    card = Card(ODD, GeneratorSettings(statistics), Origin("ema"))
    write_export(folder, card, model.state_dict())
    return folder


@torch.no_grad()
def test_an_export_is_the_model_and_its_statistics(model: TriplaneDiT, tmp_path: Path) -> None:
    loaded = TriplaneDiT.from_pretrained(exported(model, tmp_path / "out"))
    assert not loaded.training
    planes, label = random_planes(ODD), torch.tensor([3, -1])
    assert not any(differ(loaded(planes, TIME, label), model(planes, TIME, label)))
    assert loaded.statistics.std.yt.tolist() == [2.0] * 3
    assert loaded.settings.tokenizer is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": 0.0}, "is of no use: the std of xy is"),
        (
            {"channels": 4},
            r"have 4 channels for mean\.xy, the latents 3; export it again",
        ),
    ],
)
def test_statistics_that_are_not_the_models(
    model: TriplaneDiT, tmp_path: Path, changes: dict, message: str
) -> None:
    folder = exported(model, tmp_path / "out", **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        TriplaneDiT.from_pretrained(folder)
    assert str(folder) in str(caught.value)
