"""From a model to the velocity that a sampler integrates: on rows of numbers, of given classes,
with classifier-free guidance.

Shapes: B batch, M all numbers of a latent (`geometry.planes.pack`).
"""

from collections.abc import Callable

import torch

from coordtok.config.models import NO_LABEL, DiTModelConfig
from coordtok.config.sampling import SamplerConfig
from coordtok.diffusion.samplers import Velocity
from coordtok.errors import ConfigError
from coordtok.geometry.latent import LatentShape
from coordtok.geometry.planes import Planes, pack, unpack

Model = Callable[[Planes, torch.Tensor, torch.Tensor | None], Planes]
"""A `TriplaneDiT`, or an engine around one."""
LabelledVelocity = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
"""(x_BM, time_B, label_B or None) to v_BM."""


def flat_velocity(model: Model, latent: LatentShape) -> LabelledVelocity:
    """The model on packed latents."""

    def velocity(
        x_BM: torch.Tensor, time_B: torch.Tensor, label_B: torch.Tensor | None
    ) -> torch.Tensor:
        return pack(model(unpack(x_BM, latent), time_B, label_B))

    return velocity


def guided_velocity(
    velocity: LabelledVelocity, label_B: torch.Tensor | None, settings: SamplerConfig
) -> Velocity:
    """The velocity of the labels, v_null + guidance * (v_label - v_null) within the interval.

    There both are computed in one forward pass of twice the batch. label_B: -1 for no class; None
    where none has one, and nothing is guided.
    """
    low, high = settings.guidance_interval

    def guided(x_BM: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
        inside_B = (time_B >= low) & (time_B <= high)
        if label_B is None or settings.guidance == 1 or not inside_B.any():
            return velocity(x_BM, time_B, label_B)
        labels = torch.cat([label_B, torch.full_like(label_B, NO_LABEL)])
        both = velocity(torch.cat([x_BM, x_BM]), torch.cat([time_B, time_B]), labels)
        of_label_BM, of_none_BM = both.chunk(2)
        mixed_BM = of_none_BM + settings.guidance * (of_label_BM - of_none_BM)
        return torch.where(inside_B[:, None], mixed_BM, of_label_BM)

    return guided


def check_guidance(settings: SamplerConfig, config: DiTModelConfig) -> None:
    """Raise a `ConfigError` where guidance is asked of a model that knows no classes."""
    if settings.guidance != 1 and config.classes == 0:
        raise ConfigError(
            f"guidance is {settings.guidance}, but the model is unconditional; leave it at 1"
        )
