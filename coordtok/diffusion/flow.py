"""Flow matching: the path from noise (t = 0) to data (t = 1), and what is learned of it.

Noise and times are passed in: they are drawn on the host, per sample, by the training task.

Shapes: B batch, M all numbers of a latent (`geometry.planes.pack`).
"""

import math

import numpy as np
import torch

from coordtok.config.sampling import FlowConfig


def interpolate(
    data_BM: torch.Tensor, noise_BM: torch.Tensor, time_B: torch.Tensor
) -> torch.Tensor:
    """The point at `time_B` of the straight line from noise to data."""
    time_B1 = time_B[:, None].to(data_BM.dtype)
    return time_B1 * data_BM + (1 - time_B1) * noise_BM


def velocity_target(data_BM: torch.Tensor, noise_BM: torch.Tensor) -> torch.Tensor:
    """The velocity along that line, which the model predicts."""
    return data_BM - noise_BM


def draw_time(rng: np.random.Generator, flow: FlowConfig) -> float:
    """A time in [0, 1] for one clip, from the caller's counter-based generator."""
    if flow.time == "uniform":
        return float(rng.random())
    logit = rng.normal(flow.logit_mean, flow.logit_std)
    return (1 + math.tanh(logit / 2)) / 2  # the sigmoid; exp would overflow for absurd logits


def flow_loss(predicted_BM: torch.Tensor, target_BM: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each clip, (B,), over all of its numbers."""
    return (predicted_BM.float() - target_BM.float()).square().mean(dim=1)
