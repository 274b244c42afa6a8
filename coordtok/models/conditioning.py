"""The conditioning of a diffusion transformer, time and label, and the table of its positions.

Shapes: B batch, D width, F frequencies; R, S rows and columns of tokens.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from coordtok.config.models import NO_LABEL

FREQUENCIES = 256
"""Features of the time before its MLP, half of them cosines (docs/official_weights.md)."""
MAX_PERIOD = 10_000
LABEL_STD = 0.02
"""As in DiT: labels start small beside the time."""


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32, whatever its weights are stored in."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.float()
        return F.linear(input.float(), self.weight.float(), bias)


class TimeEmbedding(nn.Module):
    """The time in [0, 1], (B,), as a vector (B, D) in float32: neighbouring steps of a sampler are
    one number in bfloat16."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.up = Float32Linear(FREQUENCIES, dim)
        self.out = Float32Linear(dim, dim)

    def forward(self, time_B: torch.Tensor) -> torch.Tensor:
        with torch.autocast(time_B.device.type, enabled=False):
            return self.out(F.silu(self.up(time_features(time_B))))


def time_features(time_B: torch.Tensor) -> torch.Tensor:
    """(B, F) float32: cosines, then sines, of the time at geometrically spaced frequencies."""
    half = FREQUENCIES // 2
    steps_F = torch.arange(half, dtype=torch.float32, device=time_B.device)
    angle_BF = time_B.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) / half * steps_F)
    return torch.cat([angle_BF.cos(), angle_BF.sin()], dim=1)


class LabelEmbedding(nn.Embedding):
    """A row for each class, and a last one for no class."""

    def __init__(self, classes: int, dim: int) -> None:
        super().__init__(classes + 1, dim)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=LABEL_STD)

    def forward(self, label_B: torch.Tensor) -> torch.Tensor:
        """(B, D); `NO_LABEL` has the last row."""
        last = self.num_embeddings - 1
        return super().forward(torch.where(label_B == NO_LABEL, last, label_B))


def sincos_table(rows: int, columns: int, dim: int) -> torch.Tensor:
    """(R * S, D) float32, row-major: sines and cosines of the row, then of the column.

    A quarter of the width each, zeros where 4 does not divide it (MAE's table, as in DiT). Made
    with numpy: `deepspeed.zero.Init` would make it in the precision of the model.
    """
    quarter = dim // 4
    frequency_F = MAX_PERIOD ** -(np.arange(quarter) / max(1, quarter))
    table_RSD = np.zeros((rows, columns, dim))
    for axis, count in enumerate((rows, columns)):
        angle = np.arange(count)[:, None] * frequency_F
        features = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
        part = slice(2 * quarter * axis, 2 * quarter * (axis + 1))
        table_RSD[..., part] = features[:, None] if axis == 0 else features
    return torch.from_numpy(table_RSD.reshape(-1, dim).astype(np.float32))
