"""Samples of a generator, each a function of the seed and its own number alone.

What is random about sample i is drawn on the host from (seed, i), and forward passes have one
shape throughout (the last chunk is padded with samples that are thrown away), so that the same
latents come out on any number of ranks, bit for bit.

Shapes: B samples of a chunk, M all numbers of a latent, F frames, H rows, W columns; R, S rows and
columns of a plane, C its channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from coordtok.config.models import DiTModelConfig
from coordtok.config.sampling import SamplerConfig
from coordtok.data.order import sample_rng
from coordtok.diffusion.generate import generate
from coordtok.diffusion.guidance import Model, check_guidance
from coordtok.diffusion.samplers import times
from coordtok.errors import CheckpointError, ConfigError
from coordtok.geometry.pixels import to_uint8
from coordtok.geometry.planes import Planes
from coordtok.models.dit import TriplaneDiT
from coordtok.models.known_times import KnownTimes
from coordtok.models.tokenizer import CoordTok


@dataclass(frozen=True)
class Generation:
    """How samples are made."""

    sampler: SamplerConfig
    seed: int = 0
    labels: tuple[int, ...] = ()
    """The classes that samples take in turn, by their numbers; none takes no class."""
    batch: int = 4
    """Samples of a forward pass."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch is {self.batch}; make at least 1 sample at a time")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; it must be at least 0")
        if not self.labels and self.sampler.guidance != 1:
            raise ConfigError(
                f"guidance is {self.sampler.guidance}, but no class is given; name one, or leave "
                "it at 1"
            )

    def check(self, config: DiTModelConfig) -> None:
        """Raise a `ConfigError` where the model cannot make such samples."""
        check_guidance(self.sampler, config)
        for label in self.labels:
            if not 0 <= label < config.classes:
                last = config.classes - 1
                known = f"has the classes 0 to {last}" if config.classes else "knows no classes"
                raise ConfigError(f"class {label} is asked for, but the model {known}")

    def label_of(self, number: int) -> int:
        """The class of sample `number`; there must be labels."""
        return self.labels[number % len(self.labels)]


def frame_rows(tokenizer: CoordTok, planes: Planes, shown: int) -> list[np.ndarray]:
    """For each latent (not normalised) a line of `shown` frames (F, H, W, 3) uint8, evenly spread
    over its clip."""
    frames = torch.linspace(0, tokenizer.config.frames - 1, shown).long()
    return [
        to_uint8(tokenizer.decode(planes.one(number), frames)[0]).cpu().numpy()
        for number in range(planes.batch)
    ]


def plane_rows(planes: Planes) -> list[np.ndarray]:
    """For each normalised latent a line with every channel of its first plane (the paper's xy, or
    the first of several), as grey pictures (C, R, S, 3) uint8 from -3 to 3 standard deviations."""
    grey_BCRS = to_uint8(planes[0].movedim(-1, 1) / 3)
    return list(grey_BCRS.unsqueeze(-1).expand(*grey_BCRS.shape, 3).cpu().numpy())


def chunks(count: int, batch: int) -> list[range]:
    """The numbers of `count` samples, `batch` at a time; the last chunk may be shorter."""
    return [range(first, min(first + batch, count)) for first in range(0, count, batch)]


def generate_chunk(
    model: Model,
    config: DiTModelConfig,
    device: torch.device,
    chunk: range,
    how: Generation,
    on_evaluation: Callable[[], object] = lambda: None,
) -> Planes:
    """Normalised latents of the samples with the numbers `chunk`, at most `how.batch` of them.

    on_evaluation: called after each forward pass of the sampler.

    Raises:
        ConfigError: settings that do not fit the model.
        CheckpointError: what comes out is not finite.
    """
    how.check(config)
    padded = range(chunk.start, chunk.start + how.batch)
    label_B = None
    if how.labels:
        label_B = torch.tensor([how.label_of(number) for number in padded], device=device)

    def draw(purpose: str) -> torch.Tensor:
        return _normal(how.seed, padded, config.latent.numbers, purpose).to(device)

    def step_noise(step: int) -> torch.Tensor:
        return draw(f"step {step}")

    known = times(how.sampler)
    if isinstance(model, TriplaneDiT) and known is not None:
        model = KnownTimes(model, known)
    planes = generate(
        model, config.latent, draw("noise"), label_B, how.sampler, step_noise, on_evaluation
    )
    if not all(plane.isfinite().all() for plane in planes):
        raise CheckpointError(
            f"samples {chunk.start} to {chunk.stop - 1} are not finite; take more sampler steps, "
            "float32, or weights of an earlier step"
        )
    return planes.map(lambda plane: plane[: len(chunk)])


def _normal(seed: int, samples: Sequence[int], size: int, purpose: str) -> torch.Tensor:
    """(B, M) standard normal numbers, each row of its own sample."""
    rows = [
        sample_rng(seed, 0, 0, str(number), purpose).standard_normal(size, np.float32)
        for number in samples
    ]
    return torch.from_numpy(np.stack(rows))
