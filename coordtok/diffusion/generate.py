"""From noise to the latents of a generator.

Shapes: B samples, M all numbers of a latent (`geometry.planes.pack`).
"""

from collections.abc import Callable

import torch

from coordtok.config.sampling import SamplerConfig
from coordtok.diffusion.guidance import Model, flat_velocity, guided_velocity
from coordtok.diffusion.samplers import StepNoise, sample
from coordtok.geometry.latent import LatentShape
from coordtok.geometry.planes import Planes, unpack


def generate(
    model: Model,
    latent: LatentShape,
    noise_BM: torch.Tensor,
    label_B: torch.Tensor | None,
    sampler: SamplerConfig,
    step_noise: StepNoise,
    on_evaluation: Callable[[], object] = lambda: None,
) -> Planes:
    """Normalised latents from standard normal `noise_BM`.

    label_B: the class of each sample, -1 for none; None where none has one. step_noise: see
    `samplers.sample`. on_evaluation: called after each forward pass of the sampler.

    Raises:
        ConfigError: settings that the sampler cannot work with.
    """
    guided = guided_velocity(flat_velocity(model, latent), label_B, sampler)

    def velocity(x_BM: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
        result_BM = guided(x_BM, time_B)
        on_evaluation()
        return result_BM

    return unpack(sample(velocity, noise_BM, sampler, step_noise), latent)
