"""How close a reconstruction is to its original, and how much the original moves.

Shapes: T frames, F of them, H rows, W columns, 3 colours.
"""

from collections.abc import Callable
from typing import Any

import torch

from coordtok.errors import ConfigError

SMALLEST_ERROR = 1e-10
"""Floor of the mean squared error, on [0, 1]: identical frames score 100 dB, not infinity."""
SSIM_WINDOW = 11
"""Width in pixels of its Gaussian window (sigma 1.5), as in Wang et al. (2004)."""
_PIXELS_PER_PASS = 16 * 128 * 128  # SSIM makes ten pictures of each


def psnr(predicted_THW3: torch.Tensor, target_THW3: torch.Tensor) -> float:
    """PSNR in dB of each frame, averaged over the frames (docs/method.md, "Results"); float in
    [-1, 1].

    Predictions are clipped to the range of pixels first, as they are when shown.
    """
    error = (predicted_THW3.float().clamp(-1, 1) - target_THW3.float()).div(2).square()
    error_T = error.flatten(1).mean(1, dtype=torch.float64).clamp_(min=SMALLEST_ERROR)
    return float((-10 * error_T.log10()).mean())


def psnr_of_mean_frame(target_THW3: torch.Tensor) -> float:
    """PSNR in dB of showing a clip's mean frame all the time: what any reconstruction must beat."""
    target_THW3 = target_THW3.float()
    return psnr(target_THW3.mean(0, keepdim=True).expand_as(target_THW3), target_THW3)


def ssim(predicted_THW3: torch.Tensor, target_THW3: torch.Tensor) -> float:
    """Structural similarity of each frame, averaged over the frames; pixels as for `psnr`.

    As torchmetrics 1.5 and later have it by default: Gaussian window of `SSIM_WINDOW`, each colour
    by itself, the mean over all positions, with pictures mirrored at their borders. Wang et al.,
    other packages and earlier torchmetrics leave 5 pixels at each border out of the mean, which
    moves the figures of small tokenizers at 64 x 64 by up to 0.05; hence the mean is taken here.
    """
    measure = _torchmetrics_ssim()
    scores = []
    frames = max(1, _PIXELS_PER_PASS // target_THW3[0, ..., 0].numel())
    for predicted, target in zip(predicted_THW3.split(frames), target_THW3.split(frames)):
        pair = [
            video.float().clamp(-1, 1).add(1).div(2).permute(0, 3, 1, 2)
            for video in (predicted, target)
        ]
        _, map_F3HW = measure(*pair, data_range=1.0, reduction="none", return_full_image=True)
        scores.append(map_F3HW.flatten(1).mean(1))
    return float(torch.cat(scores).double().mean())


def check_ssim(height: int, width: int) -> None:
    """ConfigError where `ssim` cannot be computed: torchmetrics is missing, or frames too small."""
    _torchmetrics_ssim()
    if min(height, width) < SSIM_WINDOW:
        raise ConfigError(
            f"frames are {height} x {width}, but SSIM needs {SSIM_WINDOW} x {SSIM_WINDOW}; "
            "leave it out with --no-ssim"
        )


def motion(video_THW3: torch.Tensor) -> float:
    """Mean absolute difference of neighbouring frames, in levels of 8 bits; uint8. One frame alone
    does not move: 0."""
    if len(video_THW3) < 2:
        return 0.0
    frames_THW3 = video_THW3.to(torch.int16)
    return float((frames_THW3[1:] - frames_THW3[:-1]).abs().double().mean())


def _torchmetrics_ssim() -> Callable[..., Any]:
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure
    except ImportError:
        raise ConfigError(
            "SSIM needs torchmetrics, which is not installed; pip install -e '.[evaluation]', or "
            "leave it out with --no-ssim"
        ) from None
    return structural_similarity_index_measure
