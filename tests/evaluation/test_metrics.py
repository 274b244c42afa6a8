"""PSNR, SSIM and motion against their definitions, written out."""

import sys

import numpy as np
import pytest
import torch

from coordtok.errors import ConfigError
from coordtok.evaluation.metrics import SMALLEST_ERROR, check_ssim, motion, psnr, ssim


def noisy(frames: int = 2, height: int = 11, width: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    target = torch.rand(frames, height, width, 3) * 2 - 1
    return (target + 0.3 * torch.randn_like(target)).clamp(-1, 1), target


def plain_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Wang et al. (2004), one position of one colour at a time, mirrored at the borders as
    torchmetrics does; pixels in [0, 1]."""
    offsets = np.arange(11) - 5
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    scores = []
    padded = [np.pad(each, ((5, 5), (5, 5), (0, 0)), "reflect") for each in (first, second)]
    for colour in range(3):
        for y in range(first.shape[0]):
            for x in range(first.shape[1]):
                a, b = (each[y : y + 11, x : x + 11, colour] for each in padded)
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (
                    (window * a * a).sum() - mean_a**2,
                    (window * b * b).sum() - mean_b**2,
                )
                covariance = (window * a * b).sum() - mean_a * mean_b
                likeness = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
                size = (mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2)
                scores.append(likeness / size)
    return float(np.mean(scores))


def test_psnr_is_averaged_over_frames() -> None:
    target = torch.zeros(2, 4, 4, 3)
    predicted = target + torch.tensor([0.2, 0.02]).reshape(2, 1, 1, 1)
    assert psnr(predicted, target) == pytest.approx((20 + 40) / 2, abs=1e-4)
    assert psnr(target, target) == pytest.approx(-10 * np.log10(SMALLEST_ERROR))
    assert psnr(target + 9, target) == psnr(target + 1, target)


def test_ssim_is_that_of_the_definition() -> None:
    predicted, target = noisy()
    frames = [
        plain_ssim(*((each[frame].double().numpy() + 1) / 2 for each in (predicted, target)))
        for frame in range(len(target))
    ]
    assert ssim(predicted, target) == pytest.approx(np.mean(frames), abs=1e-5)
    assert ssim(target, target) == pytest.approx(1)


def test_ssim_does_not_depend_on_how_frames_are_taken_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    predicted, target = noisy(5)
    together = ssim(predicted, target)
    monkeypatch.setattr("coordtok.evaluation.metrics._PIXELS_PER_PASS", 1)
    assert ssim(predicted, target) == pytest.approx(together, abs=1e-7)


def test_what_ssim_cannot_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    check_ssim(11, 11)
    with pytest.raises(ConfigError, match="needs 11 x 11"):
        check_ssim(10, 64)
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(ConfigError, match="torchmetrics, which is not installed"):
        check_ssim(64, 64)


def test_motion_is_in_levels() -> None:
    video = torch.tensor([0, 250, 249], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 2, 2, 3)
    assert motion(video) == pytest.approx((250 + 1) / 2)
    assert motion(video[:1]) == 0
