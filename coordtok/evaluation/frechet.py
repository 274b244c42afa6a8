"""The Frechet distance of two sets of features: rFVD and FVD, once the features are those of video.

Shapes: N and M clips, D features.
"""

from typing import NamedTuple

import numpy as np
import torch

from coordtok.errors import DataError

FEWEST = 2


class FrechetDistance(NamedTuple):
    value: float
    clips: tuple[int, int]
    """In the two sets."""
    dimension: int
    """D."""

    @property
    def reliable(self) -> bool:
        """With D clips or fewer a covariance has directions that were never seen: the distance is
        defined, but far from that of many clips."""
        return min(self.clips) > self.dimension


def frechet_distance(features_ND: np.ndarray, others_MD: np.ndarray) -> FrechetDistance:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) of means and unbiased covariances, in float64.

    No covariance is formed and no root of one taken. With S = A^T A, where A is the centred
    features over sqrt(N - 1), tr (S S')^(1/2) is the sum of the singular values of A A'^T. So
    covariances may be singular, and nothing has to be added to them.

    Raises:
        DataError: fewer than two clips on either side, or features that are not finite.
    """
    sets = [torch.from_numpy(np.array(each, np.float64)) for each in (features_ND, others_MD)]
    for features in sets:
        if len(features) < FEWEST:
            raise DataError(f"a Frechet distance of {len(features)} clips: it needs {FEWEST}")
        if not features.isfinite().all():
            raise DataError("a Frechet distance of features that are not finite")
    means = [features.mean(0) for features in sets]
    roots = [_root(features - mean) for features, mean in zip(sets, means)]
    spread = sum(float(root.square().sum()) for root in roots)
    shared = float(torch.linalg.svdvals(roots[0] @ roots[1].T).sum())
    between = float((means[0] - means[1]).square().sum())
    value = max(0.0, between + spread - 2 * shared)
    return FrechetDistance(value, (len(sets[0]), len(sets[1])), sets[0].shape[1])


def _root(centred_ND: torch.Tensor) -> torch.Tensor:
    """A matrix R with R^T R the covariance, of at most D rows."""
    scaled_ND = centred_ND / (len(centred_ND) - 1) ** 0.5
    if len(scaled_ND) <= scaled_ND.shape[1]:
        return scaled_ND
    return torch.linalg.qr(scaled_ND, mode="r").R
