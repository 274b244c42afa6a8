"""The linear path: a codec in the shape of the planes, whole from the first step on.

Videos are T frames of H rows and W columns of 3 colours; N are patches.
"""

from dataclasses import dataclass, fields, replace

import pytest
import torch

from coordtok.config.models import TokenizerModelConfig
from coordtok.errors import ConfigError
from coordtok.geometry.latent import LatentShape
from coordtok.geometry.pixels import from_uint8
from coordtok.models.linear_fit import _Regression, _ridge, fit
from coordtok.models.linear_path import (
    _products_by_place,
    cell_size,
    cut,
    nodes_around,
    uncut,
)
from coordtok.models.tokenizer import CoordTok
from tests.support.tiny import TINY

CONFIG = replace(TINY, linear_path=True, plane_size=(4, 4, 3), plane_patch=(2, 2, 1))
DEEP = replace(CONFIG, decoder_patch=(2, 4, 8))
NEAR = replace(CONFIG, linear_reach=1)
PARTS = replace(CONFIG, content_planes=2, plane_channels=(4, 2, 3))
NEAR_PARTS = replace(PARTS, linear_reach=1)


def moving(clips: int, seed: int = 0) -> torch.Tensor:
    """Waves that travel, (B, T, H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(seed)
    speed, phase = torch.randn(2, clips, 1, 1, 1, 3, generator=generator)
    t, y, x = (torch.arange(size)[..., None] for size in CONFIG.video_size)
    row = 0.3 * y[None, None, :, None] + speed * t[None, :, None, None] + phase
    video = 127 + 60 * row.sin() + 50 * (0.2 * x[None, None, None] - phase).cos()
    return video.round().clamp(0, 255).to(torch.uint8)


def fitted(config: TokenizerModelConfig, clips: int = 60) -> CoordTok:
    torch.manual_seed(0)
    model = CoordTok(config).eval()
    model.load_state_dict(fit(config, moving(clips)), strict=False)
    return model


def error(model: CoordTok, video: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model.decode(model.encode(video)) - from_uint8(video)).square().mean())


def test_cells_share_the_video_among_the_nodes_of_a_plane() -> None:
    video = torch.arange(2 * 8 * 16 * 24 * 3).view(2, 8, 16, 24, 3)
    assert cell_size(PARTS.latent.plane_groups[0], PARTS.video_size) == (4, 4, 8)
    shapes = [cell_size([plane], CONFIG.video_size) for plane in CONFIG.latent.planes]
    assert shapes == [(8, 4, 8), (2, 4, 24), (2, 16, 8)]
    for plane, cell in zip(CONFIG.latent.planes, shapes):
        cells = cut(video, cell)
        assert cells.shape[1] == plane.size[0] * plane.size[1]
        assert torch.equal(uncut(cells, cell, CONFIG.video_size), video)
    assert torch.equal(cut(video, shapes[0])[0, 4].view(8, 4, 8, 3), video[0, :, 4:8, 8:16])


@pytest.mark.parametrize("config", [CONFIG, DEEP, PARTS, replace(DEEP, content_planes=2)])
def test_a_fitted_model_is_a_linear_codec_at_its_first_step(config: TokenizerModelConfig) -> None:
    """What is decoded is the mean colour and each plane's coefficients times its components."""
    model, video = fitted(config), moving(2, seed=1)
    weights = model.state_dict()
    expected = rest = from_uint8(video) - weights["encoder.linear.mean"]
    expected = torch.zeros_like(rest) + weights["encoder.linear.mean"]
    for number, group in enumerate(config.latent.plane_groups):
        cell = cell_size(group, config.video_size)
        cells = cut(rest, cell)
        analysis = weights[f"encoder.linear.cells.{number}.analysis"]
        basis = analysis / analysis.norm(dim=1, keepdim=True)
        part = uncut(cells @ basis.T @ basis, cell, config.video_size)
        expected, rest = expected + part, rest - part
    with torch.no_grad():
        planes = model.encode(video)
        torch.testing.assert_close(model.decode(planes), expected.clamp(-1, 1), atol=2e-5, rtol=0)
        assert all(plane.std() < 5 for plane in planes)


def test_patches_of_one_place_are_computed_together_or_alone_alike() -> None:
    """On a CPU patches share products, on a GPU each has its own."""
    generator = torch.Generator().manual_seed(0)
    read, synthesis = torch.randn(2, 9, 4, generator=generator), torch.randn(5, 4, 6)
    within = torch.randint(0, 4, (2, 9), generator=generator)
    read.requires_grad_()
    synthesis.requires_grad_()
    together = _products_by_place(read, within, synthesis)
    alone = (read.unsqueeze(-2) @ synthesis[within]).squeeze(-2)
    torch.testing.assert_close(together, alone)
    weights = torch.randn_like(alone)
    for a, b in zip(
        torch.autograd.grad((together * weights).sum(), (read, synthesis)),
        torch.autograd.grad((alone * weights).sum(), (read, synthesis)),
    ):
        torch.testing.assert_close(a, b)


def test_it_fits_other_videos_of_the_kind_and_better_with_more_channels() -> None:
    other = moving(4, seed=1)
    errors = [error(fitted(replace(CONFIG, plane_channels=n)), other) for n in (1, 4, 12)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_nodes_around_are_those_at_the_edge_beyond_it() -> None:
    rows, columns = torch.tensor([0, 1]), torch.tensor([2, 1])
    assert nodes_around(rows, columns, (2, 3), 0).tolist() == [[2], [4]]
    assert nodes_around(rows, columns, (2, 3), 1).tolist() == [
        [1, 2, 2, 1, 2, 2, 4, 5, 5],
        [0, 1, 2, 3, 4, 5, 3, 4, 5],
    ]


def smooth(clips: int, seed: int = 0) -> torch.Tensor:
    """Random hills wider than a cell: each cell says something of those beside it."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(clips, 3, 2, 3, 3, generator=generator)
    video = torch.nn.functional.interpolate(coarse, CONFIG.video_size, mode="trilinear")
    return (255 * video).round().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def test_nodes_around_say_more_of_a_patch_than_its_own() -> None:
    """Of clips that nothing was fitted to, too."""
    errors = []
    for config in (CONFIG, NEAR):
        model = CoordTok(replace(config, plane_channels=3)).eval()
        model.load_state_dict(fit(model.config, smooth(60)), strict=False)
        errors.append(error(model, smooth(8, seed=1)))
    assert errors[1] < 0.8 * errors[0]


def test_of_noise_nothing_is_added() -> None:
    """Regressed on few rows, it would be predicted worse than by nothing."""
    generator = torch.Generator().manual_seed(0)
    halves = _Regression(30, 6), _Regression(30, 6)
    for half in halves:
        half.add(
            torch.randn(1, 40, 30, generator=generator), torch.randn(1, 40, 6, generator=generator)
        )
    assert not _ridge(*halves).any()


def test_a_regression_is_that_of_all_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, wanted = torch.randn(2, 200, 5, generator=generator), torch.randn(5, 6)
    halves = _Regression(5, 6), _Regression(5, 6)
    for half, rows in zip(halves, inputs.split(1)):
        half.add(rows, rows @ wanted)
    torch.testing.assert_close(_ridge(*halves), wanted, atol=5e-3, rtol=0)


@pytest.mark.parametrize("clips", [1, 2, 3, 8, 9])
def test_few_clips_are_enough(clips: int) -> None:
    weights = fit(NEAR, smooth(clips))
    assert all(each.isfinite().all() for each in weights.values())
    own = slice(4 * NEAR.plane_channels, 5 * NEAR.plane_channels)
    around = weights["decoder.linear.cells.0.synthesis"].clone()
    around[:, own] = 0
    assert around.any() == (clips > 1)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_clips_without_pictures_say_nothing(level: int) -> None:
    weights = fit(NEAR, torch.full((20, *NEAR.video_size, 3), level, dtype=torch.uint8))
    assert all(each.isfinite().all() for each in weights.values())


@pytest.mark.parametrize("config", [CONFIG, NEAR])
def test_the_same_clips_fit_the_same_values(config: TokenizerModelConfig) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second = (fit(config, moving(20)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("config", [CONFIG, NEAR, PARTS, NEAR_PARTS])
def test_every_fitted_weight_is_one_of_the_model_and_is_trained(
    config: TokenizerModelConfig,
) -> None:
    model = CoordTok(config)
    weights = fit(config, moving(20))
    model.load_state_dict(weights, strict=False)
    parameters = dict(model.named_parameters())
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in parameters.items() if ".linear." in name
    }
    index = torch.zeros(1, 3, 3, dtype=torch.int64)
    index[0, :, 0] = torch.tensor([0, 3, 7])
    model(moving(1), index).square().mean().backward()
    assert all(parameters[name].grad.abs().sum() > 0 for name in weights)


def test_planes_are_contiguous_however_tokens_are_cut() -> None:
    """Tokens of one node each make planes that are views of the transformer's output."""
    grid = {"video_patch": (8, 4, 8), "plane_size": (1, 4, 3), "plane_patch": (1, 1, 1)}
    for linear_path in (False, True):
        config = replace(CONFIG, plane_start="pooled", linear_path=linear_path, **grid)
        planes = CoordTok(config).encode(moving(2))
        assert all(plane.is_contiguous() for plane in planes)


@pytest.mark.parametrize("config", [CONFIG, NEAR, NEAR_PARTS])
def test_padding_has_no_influence(config: TokenizerModelConfig) -> None:
    model, video = fitted(config), moving(1, seed=1)
    other = video.clone()
    other[:, 5:] = 200
    with torch.no_grad():
        for a, b in zip(model.encode(video, [5]), model.encode(other, [5])):
            assert torch.equal(a, b)


@pytest.mark.parametrize("config", [CONFIG, NEAR, NEAR_PARTS])
def test_between_frames_it_is_between_their_pixels(config: TokenizerModelConfig) -> None:
    model = fitted(config)
    with torch.no_grad():
        planes = model.encode(moving(1, seed=1) // 2 + 64)  # far from where pixels are clipped
        frames, between = model.decode(planes, frames=[2, 3]), model.decode(planes, times=[2.25])
    torch.testing.assert_close(between[:, 0], torch.lerp(*frames.unbind(1), 0.25))


def test_planes_that_patches_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"the video is 24 along x, which model.plane_size 5 does"
    ):
        replace(CONFIG, plane_size=(4, 4, 5), plane_patch=(1, 1, 1))
    with pytest.raises(
        ConfigError, match=r"2 nodes along y, 8 pixels .* model.decoder_patch is 16"
    ):
        replace(CONFIG, plane_size=(4, 2, 3), plane_patch=(2, 1, 1), decoder_patch=(1, 16, 8))


def test_nodes_around_a_patch_are_of_its_own_time() -> None:
    model = fitted(NEAR_PARTS)
    with torch.no_grad():
        planes = model.encode(moving(1, seed=1) // 2 + 64)
        before = model.decode(planes)
        after = model.decode(planes._replace(xy1=planes.xy1 + 1))
    changed = (before != after).flatten(2).any(-1)[0]
    assert changed.tolist() == [False] * 4 + [True] * 4


def test_planes_of_other_shapes_are_cut_one_by_one() -> None:
    """A shape of one's own: two planes of different channels are each of whole clips."""
    early, late = (replace(plane, channels=n) for plane, n in zip(PARTS.latent.planes, (4, 3)))
    shape = LatentShape((early, late))

    @dataclass(frozen=True)
    class Uneven(TokenizerModelConfig):
        @property
        def latent(self) -> LatentShape:
            return shape

    model = CoordTok(Uneven(**{f.name: getattr(PARTS, f.name) for f in fields(PARTS)}))
    assert [tuple(each.shape) for each in model.encode(moving(1))] == [(1, 4, 3, 4), (1, 4, 3, 3)]


def test_too_few_clips_are_refused() -> None:
    with pytest.raises(ConfigError, match="the training clips have 12 cells for plane xy"):
        fit(replace(CONFIG, plane_channels=13), moving(1))
