"""The convolutions of VGG16 whose features the perceptual distances compare.

Layers are numbered as torchvision numbers them, so its state dict loads by name.

Shapes: F frames, H rows, W columns, C channels; each block after the first halves H and W.
"""

from collections.abc import Sequence

import torch
from torch import nn

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions in each block of VGG16."""

SMALLEST_SIDE = 2 ** (len(BLOCKS) - 1)
"""Pixels: what four halvings leave one of."""


def convolution_names(blocks: Sequence[Sequence[int]] = BLOCKS) -> list[str]:
    """What torchvision calls the convolutions, in order."""
    names, layer = [], 0
    for block in blocks:
        names += [f"features.{layer + 2 * number}" for number in range(len(block))]
        layer += 2 * len(block) + 1  # each has a ReLU, and each block a pooling
    return names


class VGGFeatures(nn.Module):
    """The 3 x 3 convolutions of a VGG network, read after the last ReLU of each block (relu1_2,
    2_2, 3_3, 4_3 and 5_3 of VGG16)."""

    def __init__(self, blocks: Sequence[Sequence[int]] = BLOCKS) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.taps: list[int] = []
        inputs = 3
        for block in blocks:
            if self.taps:
                self.features.append(nn.MaxPool2d(2))
            for channels in block:
                self.features.append(nn.Conv2d(inputs, channels, 3, padding=1))
                self.features.append(nn.ReLU(inplace=True))
                inputs = channels
            self.taps.append(len(self.features) - 1)

    def forward(self, image_F3HW: torch.Tensor) -> list[torch.Tensor]:
        """The features (F, C, H, W) of each block; the image is scaled as the weights want it."""
        found = []
        x_FCHW = image_F3HW
        for number, layer in enumerate(self.features):
            x_FCHW = layer(x_FCHW)
            if number in self.taps:
                found.append(x_FCHW)
        return found
