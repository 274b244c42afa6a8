"""What a report works out of the clips' scores."""

import pytest

from coordtok.evaluation.report import correlation
from coordtok.evaluation.scoring import ClipScore


def scores(*pairs: tuple[float, float]) -> list[ClipScore]:
    """Of clips with so much (motion, PSNR)."""
    return [ClipScore(n, psnr, None, None, motion) for n, (motion, psnr) in enumerate(pairs)]


def test_correlation_of_motion_and_psnr() -> None:
    assert correlation(scores((1, 30), (2, 28), (3, 26))) == pytest.approx(-1)
    assert correlation(scores((0, 3), (1, 3 + 3**0.5), (2, 3))) == pytest.approx(0)


def test_no_correlation_of_too_few_clips_or_of_equal_ones() -> None:
    assert correlation([]) is None
    assert correlation(scores((1, 30), (2, 28))) is None
    assert correlation(scores((1, 30), (1, 28), (1, 26))) is None
