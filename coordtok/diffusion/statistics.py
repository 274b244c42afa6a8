"""Mean and standard deviation of latents, per plane and channel: the generator works on latents
of mean 0 and standard deviation 1.

Shapes: B batch, C channels; R, S rows and columns of one plane.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from coordtok.errors import ConfigError
from coordtok.geometry.latent import LatentShape, Plane
from coordtok.geometry.planes import Planes, planes_of


@dataclass(frozen=True)
class LatentStatistics:
    """Of each plane, (C,), float32."""

    mean: Planes
    std: Planes

    def __post_init__(self) -> None:
        for name, mean_C, std_C in zip(self.mean._fields, self.mean, self.std):
            if mean_C.ndim != 1 or mean_C.shape != std_C.shape:
                raise ConfigError(
                    f"statistics of {name} have {tuple(mean_C.shape)} means and "
                    f"{tuple(std_C.shape)} deviations; give one of each per channel"
                )
            if not (mean_C.isfinite().all() and std_C.isfinite().all()):
                raise ConfigError(f"statistics of {name} are not all finite; take them again")
            if not (std_C > 0).all():
                raise ConfigError(
                    f"the std of {name} is {std_C.tolist()}; each must be positive: a channel that "
                    "never changes cannot be normalised"
                )

    def to(self, device: torch.device | str) -> "LatentStatistics":
        return LatentStatistics(self.mean.to(device), self.std.to(device))

    def normalise(self, planes: Planes) -> Planes:
        """The model's latents of the tokenizer's (B, R, S, C)."""
        return planes._make((p - m) / s for p, m, s in zip(planes, self.mean, self.std))

    def denormalise(self, planes: Planes) -> Planes:
        """The inverse of `normalise`."""
        return planes._make(p * s + m for p, m, s in zip(planes, self.mean, self.std))

    def to_dict(self) -> dict[str, dict[str, list[float]]]:
        """Plain JSON, for the paper's planes {"mean": {"xy": [...], "yt": [...], "xt": [...]},
        "std": {...}}."""
        return {
            name: {plane: values_C.tolist() for plane, values_C in planes._asdict().items()}
            for name, planes in (("mean", self.mean), ("std", self.std))
        }

    @classmethod
    def mixture(
        cls, parts: Sequence["LatentStatistics"], weights: Sequence[float]
    ) -> "LatentStatistics":
        """Of datasets that are drawn from with these weights."""
        shares = [weight / sum(weights) for weight in weights]

        def average(planes: Sequence[Planes]) -> Planes:
            columns = zip(*planes)
            return planes[0]._make(sum(w * p for w, p in zip(shares, each)) for each in columns)

        means = [part.mean.map(torch.Tensor.double) for part in parts]
        squares = [
            mean._make(s.double().square() + m.square() for s, m in zip(part.std, mean))
            for part, mean in zip(parts, means)
        ]
        mean = average(means)
        std = mean._make((q - m.square()).sqrt() for q, m in zip(average(squares), mean))
        return cls(mean.to(torch.float32), std.to(torch.float32))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], latent: LatentShape) -> "LatentStatistics":
        """The inverse of `to_dict`, for latents of this shape.

        Raises:
            ConfigError: a part is missing or no list of numbers, or the numbers cannot be.
        """
        mean, std = (
            planes_of(latent, (_numbers(stored, name, plane) for plane in latent.planes))
            for name in ("mean", "std")
        )
        return cls(mean, std)


def _numbers(stored: Mapping[str, Any], name: str, plane: Plane) -> torch.Tensor:
    """(C,), float32."""
    section = stored.get(name)
    values = section.get(plane.name) if isinstance(section, Mapping) else None
    if not isinstance(values, list | tuple) or not values:
        raise ConfigError(f"statistics lack {name}.{plane.name}; give one number per channel")
    if not all(isinstance(value, int | float) for value in values):
        raise ConfigError(f"statistics hold {name}.{plane.name} {values}; give numbers")
    if len(values) != plane.channels:
        raise ConfigError(
            f"statistics have {len(values)} channels for {name}.{plane.name}, the latents "
            f"{plane.channels}"
        )
    return torch.tensor(values, dtype=torch.float32)
