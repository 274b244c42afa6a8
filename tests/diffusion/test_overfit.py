"""A small model learns eight latents by heart, and every sampler finds them again."""

import numpy as np
import pytest
import torch

from coordtok import TriplaneDiT
from coordtok.config.models import DiTModelConfig
from coordtok.config.sampling import FlowConfig, SamplerConfig
from coordtok.diffusion.flow import draw_time, flow_loss, interpolate, velocity_target
from coordtok.diffusion.guidance import flat_velocity, guided_velocity
from coordtok.diffusion.samplers import sample

CONFIG = DiTModelConfig(
    plane_size=(8, 4, 4), plane_channels=2, patch=2, dim=64, heads=2, layers=2, classes=8
)
NUMBERS = 2 * (4 * 4 + 8 * 4 + 8 * 4)
STEPS, BATCH = 1500, 32


def normal(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, NUMBERS, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    """(8, M): eight draws are nearly orthogonal, 16 apart."""
    return normal(8, 100)


@pytest.fixture(scope="module")
def trained(latents: torch.Tensor) -> TriplaneDiT:
    """Half of its clips are trained with their number as their class."""
    torch.manual_seed(0)
    model = TriplaneDiT(CONFIG)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    velocity, rng = flat_velocity(model, CONFIG.latent), np.random.default_rng(1)
    for step in range(STEPS):
        clip = torch.from_numpy(rng.integers(8, size=BATCH))
        label = torch.where(torch.from_numpy(rng.random(BATCH) < 0.5), clip, -1)
        data, noise = latents[clip], normal(BATCH, 1000 + step)
        time = torch.tensor([draw_time(rng, FlowConfig()) for _ in range(BATCH)])
        predicted = velocity(interpolate(data, noise, time), time, label)
        flow_loss(predicted, velocity_target(data, noise)).mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    return model.eval()


SAMPLERS = [
    SamplerConfig("euler", steps=50),
    SamplerConfig("heun", steps=25),
    SamplerConfig("dopri5", tolerance=1e-3),
    SamplerConfig("euler_maruyama", steps=250),
]


def drawn(model: TriplaneDiT, settings: SamplerConfig, label: torch.Tensor | None) -> torch.Tensor:
    velocity = guided_velocity(flat_velocity(model, CONFIG.latent), label, settings)
    return sample(velocity, normal(32, 7), settings, lambda step: normal(32, 10_000 + step))


@pytest.mark.slow
@pytest.mark.parametrize("settings", SAMPLERS, ids=lambda settings: settings.name)
def test_samples_land_on_the_training_latents(
    trained: TriplaneDiT, latents: torch.Tensor, settings: SamplerConfig
) -> None:
    distance = torch.cdist(drawn(trained, settings, None), latents)
    nearest = distance.min(dim=1)
    assert nearest.values.median() < 0.15 * torch.pdist(latents).min()
    assert len(nearest.indices.unique()) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("settings", SAMPLERS, ids=lambda settings: settings.name)
def test_a_class_is_its_latent(
    trained: TriplaneDiT, latents: torch.Tensor, settings: SamplerConfig
) -> None:
    label = torch.arange(32) % 8
    found = drawn(trained, settings, label)
    assert torch.equal(torch.cdist(found, latents).argmin(dim=1), label)
