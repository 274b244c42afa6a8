"""The Frechet distance against closed forms, and against its textbook formula."""

import numpy as np
import pytest

from coordtok.errors import DataError
from coordtok.evaluation.frechet import frechet_distance


def with_moments(mean: np.ndarray, covariance: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` points whose mean and unbiased covariance are exactly these."""
    size = len(mean)
    points = np.random.default_rng(seed).normal(size=(count, size))
    points -= points.mean(0)
    root = np.linalg.cholesky(np.cov(points.T).reshape(size, size))
    return points @ np.linalg.inv(root).T @ np.linalg.cholesky(covariance).T + mean


def textbook(first: np.ndarray, second: np.ndarray) -> float:
    """By covariances, with the root of their product from its eigenvalues."""
    covariances = [np.cov(each.T) for each in (first, second)]
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1])
    between = np.square(first.mean(0) - second.mean(0)).sum()
    traces = sum(np.trace(each) for each in covariances)
    return float(between + traces - 2 * np.sqrt(np.maximum(eigenvalues.real, 0)).sum())


def test_gaussians_along_one_direction() -> None:
    first = with_moments(np.array([1.0]), np.array([[4.0]]), 50, 0)
    second = with_moments(np.array([4.0]), np.array([[25.0]]), 70, 1)
    assert frechet_distance(first, second).value == pytest.approx(3**2 + (5 - 2) ** 2)


def test_gaussians_whose_covariances_share_axes() -> None:
    mean = np.arange(4.0)
    first = with_moments(mean, np.diag([1.0, 4.0, 9.0, 16.0]), 40, 0)
    second = with_moments(mean + 2, np.diag([4.0, 4.0, 1.0, 1.0]), 30, 1)
    assert frechet_distance(first, second).value == pytest.approx(4 * 4 + 1 + 0 + 4 + 9)


@pytest.mark.parametrize("counts", [(60, 90), (6, 90), (5, 6)])
def test_any_covariances(counts: tuple[int, int]) -> None:
    """With fewer points than features a covariance is singular."""
    rng = np.random.default_rng(2)
    first = rng.normal(size=(counts[0], 10)) @ rng.normal(size=(10, 10))
    second = rng.normal(size=(counts[1], 10)) * 3 + 1
    found = frechet_distance(first, second)
    assert found.value == pytest.approx(textbook(first, second), rel=1e-6)
    assert found.value == pytest.approx(frechet_distance(second, first).value)
    assert (found.clips, found.dimension) == (counts, 10)
    assert found.reliable == (min(counts) > 10)


def test_a_set_and_itself() -> None:
    points = np.random.default_rng(0).normal(size=(7, 40)) * 100
    assert frechet_distance(points, points).value == pytest.approx(0, abs=1e-9)
    assert frechet_distance(points, points[::-1]).value == pytest.approx(0, abs=1e-9)
    assert frechet_distance(points, points + 2).value == pytest.approx(4 * 40)


def test_float32_features_are_compared_in_float64() -> None:
    points = (np.random.default_rng(0).normal(size=(50, 3)) + 1e4).astype(np.float32)
    shifted = points + np.float32(1)
    assert frechet_distance(points, shifted).value == pytest.approx(3, rel=1e-6)


def test_what_has_no_distance() -> None:
    points = np.ones((5, 3))
    with pytest.raises(DataError, match="needs 2"):
        frechet_distance(points, points[:1])
    with pytest.raises(DataError, match="finite"):
        frechet_distance(points, points * np.nan)
