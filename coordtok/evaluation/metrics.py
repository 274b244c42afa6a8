"""How close a reconstruction is to its source.

Shapes: T frames, H rows, W columns, 3 colours.
"""

import torch

SMALLEST_ERROR = 1e-10
"""Floor of the mean squared error, on [0, 1]: identical frames score 100 dB, not infinity."""


def psnr(predicted_THW3: torch.Tensor, target_THW3: torch.Tensor) -> float:
    """PSNR in dB of each frame, averaged over the frames (PAPER: results); float in [-1, 1].

    Predictions are clipped to the range of pixels first, as they are when shown.
    """
    error = (predicted_THW3.float().clamp(-1, 1) - target_THW3.float()).div(2).square()
    error_T = error.flatten(1).mean(1, dtype=torch.float64).clamp_(min=SMALLEST_ERROR)
    return float((-10 * error_T.log10()).mean())
