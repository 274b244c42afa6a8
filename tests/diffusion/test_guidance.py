import pytest
import torch

from coordtok import Triplane
from coordtok.config.models import DiTModelConfig
from coordtok.config.sampling import SamplerConfig
from coordtok.diffusion.guidance import check_guidance, flat_velocity, guided_velocity
from coordtok.errors import ConfigError

X = torch.arange(6, dtype=torch.float32).view(3, 2)
LABEL = torch.tensor([4, 0, -1])


class Recorder:
    """A velocity that tells its label, and remembers how it was called."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(
        self, x_BM: torch.Tensor, time_B: torch.Tensor, label_B: torch.Tensor | None
    ) -> torch.Tensor:
        self.batches.append(len(x_BM))
        label_B = torch.full((len(x_BM),), -1) if label_B is None else label_B
        return x_BM + 10.0 * label_B[:, None]


def at(time: float) -> torch.Tensor:
    return torch.full((3,), time)


def test_guidance_leads_away_from_no_class_in_one_pass() -> None:
    velocity = Recorder()
    guided = guided_velocity(velocity, LABEL, SamplerConfig(guidance=3.0))
    expected = X - 10 + 3 * 10 * (LABEL + 1.0)[:, None]
    torch.testing.assert_close(guided(X, at(0.5)), expected)
    assert velocity.batches == [6]


def test_outside_its_interval_only_the_label_counts() -> None:
    velocity = Recorder()
    settings = SamplerConfig(guidance=3.0, guidance_interval=(0.25, 0.75))
    guided = guided_velocity(velocity, LABEL, settings)
    plain = X + 10.0 * LABEL[:, None]
    for time in (0.0, 0.2, 0.8, 1.0):
        assert torch.equal(guided(X, at(time)), plain)
    assert velocity.batches == [3] * 4
    for time in (0.25, 0.75):
        assert not torch.equal(guided(X, at(time)), plain)
    mixed = guided(X, torch.tensor([0.5, 0.1, 0.5]))
    assert torch.equal(mixed[1], plain[1])
    assert not torch.equal(mixed[0], plain[0])


@pytest.mark.parametrize("label", [None, LABEL])
def test_guidance_of_one_or_without_labels_is_one_plain_pass(label: torch.Tensor | None) -> None:
    velocity = Recorder()
    guidance = 1.0 if label is not None else 3.0
    guided = guided_velocity(velocity, label, SamplerConfig(guidance=guidance))
    assert torch.equal(guided(X, at(0.5)), Recorder()(X, at(0.5), label))
    assert velocity.batches == [3]


def test_the_model_sees_planes_and_the_sampler_numbers() -> None:
    config = DiTModelConfig(plane_size=(4, 2, 6), plane_channels=1, patch=2, dim=4, heads=1)
    shapes = []

    def model(planes: Triplane, time: torch.Tensor, label: torch.Tensor | None) -> Triplane:
        shapes.append([tuple(plane.shape) for plane in planes])
        return planes.map(lambda plane: 2 * plane)

    x = torch.randn(3, 12 + 8 + 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(flat_velocity(model, config.latent)(x, at(0.5), None), 2 * x)
    assert shapes == [[(3, 2, 6, 1), (3, 4, 2, 1), (3, 4, 6, 1)]]


def test_guidance_needs_classes() -> None:
    unconditional, of_classes = DiTModelConfig(), DiTModelConfig(classes=2)
    check_guidance(SamplerConfig(), unconditional)
    check_guidance(SamplerConfig(guidance=4.0), of_classes)
    with pytest.raises(ConfigError, match=r"guidance is 4\.0, but the model is unconditional"):
        check_guidance(SamplerConfig(guidance=4.0), unconditional)
