"""Sampling with what depends on times alone computed once, against sampling as it comes."""

import pytest
import torch

from coordtok.config.models import DiTModelConfig
from coordtok.config.sampling import SamplerConfig
from coordtok.diffusion import samplers
from coordtok.diffusion.generate import generate
from coordtok.geometry.planes import pack
from coordtok.models import known_times
from coordtok.models.dit import TriplaneDiT
from coordtok.models.known_times import KnownTimes

SMALL = DiTModelConfig(
    plane_size=(8, 4, 6), plane_channels=3, patch=2, dim=32, heads=2, layers=2, classes=5
)


@torch.no_grad()
@pytest.mark.parametrize("name", ["euler", "heun", "euler_maruyama"])
@pytest.mark.parametrize("most_bytes", [1, 10_000, 1 << 26])
def test_samples_are_those_of_the_model(
    name: str, most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_times, "_MOST_BYTES", most_bytes)
    torch.manual_seed(0)
    model = TriplaneDiT(SMALL).eval()
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1)
    settings = SamplerConfig(name=name, steps=7, guidance=2.0, guidance_interval=(0.2, 0.7))
    times = samplers.times(settings)
    assert times is not None
    noise_BM = torch.randn(3, SMALL.latent.numbers)
    label_B = torch.tensor([4, 0, -1])
    asked: list[float] = []

    def made(by) -> torch.Tensor:
        def noted(planes, time_B, label_B):
            asked.append(float(time_B[0]))
            return by(planes, time_B, label_B)

        planes = generate(
            noted, SMALL.latent, noise_BM, label_B, settings, lambda step: noise_BM / 2
        )
        return pack(planes)

    plain = made(model)
    embedded: list[int] = []
    model.time.register_forward_hook(lambda *_: embedded.append(1))
    torch.testing.assert_close(made(KnownTimes(model, times)), plain, rtol=1e-5, atol=1e-5)
    assert asked == [torch.tensor(time).item() for time in times] * 2
    if most_bytes == 1:
        assert len(embedded) == len(times)
    elif most_bytes == 1 << 26:
        assert len(embedded) == 2  # with the guided ones and without
