"""Samplers on a target whose velocity is known: the right distribution, order and bits."""

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from coordtok import TriplaneDiT
from coordtok.config.models import DiTModelConfig
from coordtok.config.sampling import SamplerConfig
from coordtok.diffusion.guidance import flat_velocity, guided_velocity
from coordtok.diffusion.samplers import evaluations, sample
from coordtok.errors import ConfigError
from tests.support import mixture

COUNT = 5000
ALIKE = 0.043
"""Two samples of COUNT differ by more on one line in 1 of 5000 cases (1.95 sqrt(2 / COUNT) is 1 in
1000, 2.15 1 in 5000)."""
GOOD = {
    "euler": SamplerConfig("euler", steps=100),
    "heun": SamplerConfig("heun", steps=20),
    "dopri5": SamplerConfig("dopri5", tolerance=1e-4),
    "euler_maruyama": SamplerConfig(),
}


def no_noise(step: int) -> torch.Tensor:
    raise AssertionError("an ODE asked for noise")


def step_noise(count: int = COUNT) -> Callable[[int], torch.Tensor]:
    return lambda step: mixture.normal(count, 1000 + step)


def drawn(settings: SamplerConfig, count: int = COUNT) -> torch.Tensor:
    noise = step_noise(count) if settings.name == "euler_maruyama" else no_noise
    return sample(mixture.velocity, mixture.normal(count, 7), settings, noise)


@pytest.mark.parametrize("name", GOOD)
def test_samples_are_of_the_target(name: str) -> None:
    found = drawn(GOOD[name])
    assert found.dtype == torch.float64
    mean, covariance = mixture.moments()
    torch.testing.assert_close(found.mean(dim=0), mean, atol=0.08, rtol=0)
    torch.testing.assert_close(found.T.cov(), covariance, atol=0.12, rtol=0)
    assert mixture.worst_distance(found, mixture.draw(COUNT, 3)) < ALIKE


def test_the_two_sample_test_tells_what_is_no_sample() -> None:
    data = mixture.draw(COUNT, 3)
    assert mixture.worst_distance(mixture.draw(COUNT, 5), data) < ALIKE
    poor = [SamplerConfig("euler", steps=3), SamplerConfig(steps=8), SamplerConfig("heun", steps=1)]
    for settings in poor:
        assert mixture.worst_distance(drawn(settings), data) > ALIKE, settings
    for wrong in (data * 1.15, data + 0.15, mixture.normal(COUNT, 7)):
        assert mixture.worst_distance(wrong, data) > ALIKE


def test_without_its_noise_the_sde_misses_the_target() -> None:
    silent = sample(
        mixture.velocity,
        mixture.normal(COUNT, 7),
        SamplerConfig(),
        lambda step: torch.zeros(COUNT, 2, dtype=torch.float64),
    )
    assert mixture.worst_distance(silent, mixture.draw(COUNT, 3)) > ALIKE


def test_euler_is_of_first_order_and_heun_of_second() -> None:
    exact = drawn(SamplerConfig("dopri5", tolerance=1e-10), 100)

    def errors(name: str) -> list[float]:
        found = [drawn(SamplerConfig(name, steps=steps), 100) for steps in (100, 200, 400)]
        return [float((x - exact).square().mean().sqrt()) for x in found]

    for name, order in (("euler", 1), ("heun", 2)):
        coarse, middle, fine = errors(name)
        assert 2**order * 0.8 < coarse / middle < 2**order * 1.25
        assert 2**order * 0.8 < middle / fine < 2**order * 1.25
    assert errors("heun")[0] < errors("euler")[1] / 20  # for as many evaluations


def test_dopri5_keeps_its_tolerance_for_each_row_whatever_the_batch() -> None:
    exact = drawn(SamplerConfig("dopri5", tolerance=1e-10), 64)
    together = drawn(SamplerConfig("dopri5", tolerance=1e-5), 64)
    assert (together - exact).abs().max() < 1e-3
    for row in (0, 9):
        alone = sample(
            mixture.velocity,
            mixture.normal(64, 7)[row : row + 1],
            SamplerConfig("dopri5", tolerance=1e-5),
            no_noise,
        )
        torch.testing.assert_close(alone[0], together[row], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["euler", "heun", "euler_maruyama"])
def test_steps_are_the_evaluations(name: str) -> None:
    times = []

    def counted(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        times.append(float(time[0]))
        return torch.zeros_like(x)

    settings = SamplerConfig(name, steps=5, last_step=0.2)
    asked = []
    sample(counted, torch.zeros(2, 3), settings, lambda i: asked.append(i) or torch.zeros(2, 3))
    assert len(times) == evaluations(settings)
    assert asked == ([0, 1, 2, 3] if name == "euler_maruyama" else [])
    if name != "heun":
        expected = [step * 0.2 for step in range(5)]
        assert times == pytest.approx(expected)  # with last_step 0.2 all steps are equal
    assert evaluations(SamplerConfig("dopri5")) is None


CONFIG = DiTModelConfig(
    plane_size=(4, 2, 6), plane_channels=3, patch=2, dim=32, heads=2, layers=2, classes=3
)


@pytest.fixture(scope="module")
def model() -> TriplaneDiT:
    torch.manual_seed(0)
    model = TriplaneDiT(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


@pytest.mark.parametrize("name", GOOD)
def test_the_same_numbers_give_the_same_bits(model: TriplaneDiT, name: str) -> None:
    settings = replace(GOOD[name], steps=12, guidance=2.0, tolerance=1e-4)
    numbers = 3 * (2 * 6 + 4 * 2 + 4 * 6)
    noise = torch.randn(13, 6, numbers, generator=torch.Generator().manual_seed(2))
    label = torch.tensor([0, 1, 2, -1, 1, 0])

    def run(rows: slice) -> torch.Tensor:
        velocity = guided_velocity(flat_velocity(model, CONFIG.latent), label[rows], settings)
        return sample(velocity, noise[-1, rows], settings, lambda step: noise[step, rows])

    everything = run(slice(0, 6))
    assert everything.isfinite().all()
    assert torch.equal(run(slice(0, 6)), everything)
    for rows in (slice(0, 2), slice(4, 5)):
        torch.testing.assert_close(run(rows), everything[rows], atol=1e-4, rtol=1e-4)


def test_settings_that_no_sampler_takes(monkeypatch) -> None:
    with pytest.raises(ConfigError, match="euler_maruyama takes at least 2"):
        drawn(SamplerConfig(steps=1))
    monkeypatch.setattr("coordtok.diffusion.samplers.MOST_ADAPTIVE_STEPS", 20)
    with pytest.raises(ConfigError, match=r"sampler.tolerance is 1e-30, which dopri5 cannot keep"):
        drawn(SamplerConfig("dopri5", tolerance=1e-30), 10)
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ConfigError, match="needs the package torchdiffeq: pip install"):
        drawn(SamplerConfig("dopri5"), 10)
