"""Features of many clips, and the Frechet distance of two sets of them.

Shapes: B clips of a batch, D features.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coordtok.data.clip_reader import ClipBatch
from coordtok.errors import DataError
from coordtok.evaluation.features import (
    FeatureChoice,
    FeatureNetwork,
    Preparation,
    TorchScriptFeatures,
)
from coordtok.evaluation.frechet import FEWEST, frechet_distance
from coordtok.evaluation.transnetv2 import TransNetV2Features

TRANSNETV2 = "transnetv2"

FeatureSets = dict[int, dict[int, np.ndarray]]
"""Length in frames -> number of the clip -> its features (D,)"""


def load_features(
    name: str, device: torch.device | str, preparation: Preparation | None = None
) -> FeatureNetwork:
    """The network called `transnetv2`, or that of a TorchScript file.

    Raises:
        DataError: the file cannot be used.
        ConfigError: transnetv2 is not installed.
    """
    if name == TRANSNETV2:
        return TransNetV2Features(device)
    return TorchScriptFeatures(Path(name), device, preparation)


@dataclass(frozen=True)
class FeatureTaker:
    """Takes features of the first frames of clips, at each of some lengths."""

    network: FeatureNetwork
    lengths: tuple[int, ...]

    @classmethod
    def load(
        cls, choice: FeatureChoice, size: tuple[int, int, int], device: torch.device | str
    ) -> "FeatureTaker":
        """The chosen network, tried on a black clip of `size` (T, H, W) at every length.

        Raises:
            UserError: the network cannot be used for such clips.
        """
        network = load_features(choice.network, device, choice.preparation)
        lengths = choice.lengths(size[0])
        for length in lengths:
            network(torch.zeros((1, length, *size[1:], 3), dtype=torch.uint8))
        return cls(network, lengths)

    def check_clips(self, frames: Iterable[int], what: str) -> None:
        """DataError unless at every length two of the clips with so many `frames` are as long."""
        stored = list(frames)
        for length in self.lengths:
            found = sum(each >= length for each in stored)
            if found < FEWEST:
                raise DataError(
                    f"{found} of the {len(stored)} {what} have {length} frames, and a Frechet "
                    f"distance needs {FEWEST}; take more, or a smaller --fvd-frames"
                )

    def add(self, sets: FeatureSets, batch: ClipBatch) -> None:
        """Put the features of a batch's clips that are long enough into `sets`."""
        for length in self.lengths:
            found = sets.setdefault(length, {})
            places = [place for place in batch.numbers if batch.data["num_frames"][place] >= length]
            if places:
                features_BD = self.network(batch.data["video"][:, :length])
                found.update({batch.numbers[place]: features_BD[place] for place in places})


def distances(
    network: FeatureNetwork, some: FeatureSets, others: FeatureSets
) -> list[dict[str, Any]]:
    """The Frechet distance at each length, as reports give it."""
    found = []
    for length, features in some.items():
        distance = frechet_distance(_matrix(features), _matrix(others[length]))
        found.append(
            {
                "features": network.name,
                "frames": length,
                "value": distance.value,
                "clips": list(distance.clips),
                "dimension": distance.dimension,
                "reliable": distance.reliable,
            }
        )
    return found


def _matrix(features: dict[int, np.ndarray]) -> np.ndarray:
    """(N, D) of N clips."""
    return np.stack(list(features.values())) if features else np.empty((0, 1), np.float32)
