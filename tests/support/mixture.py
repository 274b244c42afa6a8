"""A mixture of Gaussians: its samples, and the velocity of the linear path to it, in closed form.

Given the component, noise and data are Gaussian, and so is the velocity given where one is.
"""

import math

import torch

MEANS = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [-0.5, -1.5]], dtype=torch.float64)
STDS = torch.tensor([0.5, 0.3, 0.8], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def draw(count: int, seed: int) -> torch.Tensor:
    """(count, 2) float64 of the mixture."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.multinomial(WEIGHTS, count, replacement=True, generator=generator)
    return MEANS[which] + STDS[which, None] * normal(count, seed + 1)


def normal(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, generator=generator, dtype=torch.float64)


def velocity(x_B2: torch.Tensor, time_B: torch.Tensor) -> torch.Tensor:
    """E[data - noise | x] at the time."""
    t = time_B[:, None, None].double()
    centre, variance = t * MEANS, (t * STDS[:, None]) ** 2 + (1 - t) ** 2
    away = x_B2[:, None].double() - centre
    logits = WEIGHTS.log() - away.square().sum(-1) / variance[..., 0] / 2 - variance[..., 0].log()
    of_component = MEANS + (t * STDS[:, None] ** 2 - (1 - t)) / variance * away
    return (logits.softmax(dim=1)[..., None] * of_component).sum(dim=1).to(x_B2.dtype)


def moments() -> tuple[torch.Tensor, torch.Tensor]:
    """The mixture's mean (2,) and covariance (2, 2)."""
    mean = WEIGHTS @ MEANS
    away = MEANS - mean
    spread = torch.einsum("k,ki,kj->ij", WEIGHTS, away, away)
    return mean, spread + (WEIGHTS @ STDS**2) * torch.eye(2, dtype=torch.float64)


def worst_distance(left: torch.Tensor, right: torch.Tensor) -> float:
    """The largest Kolmogorov-Smirnov distance over eight projections."""
    angles = torch.arange(8, dtype=torch.float64) * math.pi / 8
    lines = torch.stack([angles.cos(), angles.sin()])
    return max(_distance(a, b) for a, b in zip((left @ lines).T, (right @ lines).T))


def _distance(left: torch.Tensor, right: torch.Tensor) -> float:
    left, right = left.sort().values, right.sort().values
    places = torch.cat([left, right])
    below = [torch.searchsorted(part, places, right=True) / len(part) for part in (left, right)]
    return float((below[0] - below[1]).abs().max())
