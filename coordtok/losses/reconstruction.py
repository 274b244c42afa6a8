"""Pixel losses of a tokenizer."""

import torch


def mse_per_clip(pred_BNP3: torch.Tensor, target_BNP3: torch.Tensor) -> torch.Tensor:
    """Mean squared error of each clip over all else, (B,) float32; pixels in [-1, 1]."""
    return (pred_BNP3.float() - target_BNP3.float()).square().flatten(1).mean(dim=1)
