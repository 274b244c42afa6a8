"""Networks whose features the Frechet distance compares.

Shapes: B clips, T frames, H rows, W columns, 3 colours, D features.
"""

from typing import Protocol

import numpy as np
import torch


class FeatureNetwork(Protocol):
    """Gives a clip's features; the same for a clip whatever else the batch holds."""

    name: str
    """As reports call it."""
    settings: dict[str, object]
    """What its figures depend on, plain JSON."""

    def __call__(self, video_BTHW3: torch.Tensor) -> np.ndarray:
        """Features (B, D) float32 of uint8 video. Raises DataError where they are not finite."""
