"""VGG16 of random weights in the layouts that are published, and its distance written out again."""

import math
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

CHANNELS = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
LAYERS = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
"""The convolutions of torchvision's vgg16().features."""
LAST_OF_BLOCK = [2, 7, 14, 21, 28]


def random_vgg(seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict by torchvision's names, scaled so that activations keep their size."""
    generator = torch.Generator().manual_seed(seed)
    tensors, inputs = {}, 3
    for layer, channels in zip(LAYERS, CHANNELS):
        weight = torch.randn(channels, inputs, 3, 3, generator=generator)
        tensors[f"features.{layer}.weight"] = weight * math.sqrt(2 / (9 * inputs))
        tensors[f"features.{layer}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        inputs = channels
    return tensors


def random_heads(seed: int = 0) -> dict[str, torch.Tensor]:
    """By the names of the lpips package."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"lin{number}.model.1.weight": torch.rand(1, channels, 1, 1, generator=generator)
        for number, channels in enumerate([64, 128, 256, 512, 512])
    }


def write_vgg(path: Path, seed: int = 0) -> Path:
    """Network and heads in one file."""
    torch.save({**random_vgg(seed), **random_heads(seed)}, path)
    return path


def write_keras(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """The network as a HED network's Keras weights: kernels (rows, columns, in, out)."""
    import h5py

    with h5py.File(path, "w") as file:
        block, number = 1, 0
        for layer in LAYERS:
            name = f"block{block}/layers/conv2d" + (f"_{number}" if number else "")
            kernel = tensors[f"features.{layer}.weight"].permute(2, 3, 1, 0).numpy()
            file[f"{name}/vars/0"] = np.ascontiguousarray(kernel)
            file[f"{name}/vars/1"] = tensors[f"features.{layer}.bias"].numpy()
            block, number = (block + 1, 0) if layer in LAST_OF_BLOCK else (block, number + 1)
    return path


def reference(
    tensors: dict[str, torch.Tensor],
    heads: list[torch.Tensor],
    predicted_F3HW: torch.Tensor,
    target_F3HW: torch.Tensor,
) -> torch.Tensor:
    """The distance of images scaled as the network wants them, (F,), in float64."""
    images = [predicted_F3HW.double(), target_F3HW.double()]
    total = torch.zeros(len(predicted_F3HW), dtype=torch.float64)
    for layer in LAYERS:
        weight, bias = (tensors[f"features.{layer}.{name}"].double() for name in ("weight", "bias"))
        images = [functional.conv2d(x, weight, bias, padding=1).clamp_min(0) for x in images]
        if layer not in LAST_OF_BLOCK:
            continue
        unit = [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in images]
        head = heads[LAST_OF_BLOCK.index(layer)].double().reshape(1, -1, 1, 1)
        total += ((unit[0] - unit[1]).square() * head).sum(1).mean((1, 2))
        images = [functional.max_pool2d(x, 2) for x in images]
    return total
