"""How different two pictures look: distances between the features of a frozen VGG network.

LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
2018; net="vgg", version 0.1) weighs the channels with heads fitted to people's judgements.
VGG(HED) is its stand-in where VGG16 cannot be had: the same five layers of an edge detector's
slightly fine-tuned VGG16, all channels weighing the same. Its figures compare with one another and
never with LPIPS.

Shapes: F frames, H rows, W columns, C channels; pixels in [-1, 1].
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from coordtok.errors import CheckpointError, ConfigError
from coordtok.losses import hed
from coordtok.losses.vgg import BLOCKS, SMALLEST_SIDE, VGGFeatures
from coordtok.losses.vgg_files import (
    HED,
    LPIPS_HEADS,
    VGG16,
    find_published,
    is_published,
    read_state_dict,
)

Network = Literal["lpips", "hed"]

LPIPS_SHIFT = (-0.030, -0.088, -0.188)
LPIPS_SCALE = (0.458, 0.448, 0.450)
PIXELS_PER_PASS = 32 * 128 * 128
"""Of either picture at once, some 2 GB of activations; more are done in turns, each recomputed in
the backward pass."""
_EPSILON = 1e-10


class PerceptualDistance(nn.Module):
    """Sum over layers of the weighted squared difference of channel-normalised features, averaged
    over positions. Frozen, and in fp32 whatever the precision around it."""

    def __init__(
        self,
        network: VGGFeatures,
        heads: Sequence[torch.Tensor],
        shift: Sequence[float],
        scale: Sequence[float],
        name: str,
        pixels_per_pass: int = PIXELS_PER_PASS,
    ) -> None:
        """`heads` are the weights (C,) of each layer's channels; the network sees
        (pixel - shift) / scale."""
        super().__init__()
        self.network = network
        self.heads = nn.ParameterList(head.float() for head in heads)
        self.shift = nn.Parameter(torch.tensor(shift))
        self.scale = nn.Parameter(torch.tensor(scale))
        self.name = name
        self.pixels_per_pass = pixels_per_pass
        self.requires_grad_(False).eval()

    def forward(self, predicted_FHW3: torch.Tensor, target_FHW3: torch.Tensor) -> torch.Tensor:
        """The distance of each pair, (F,) float32; its gradient reaches `predicted` alone."""
        check_size(*predicted_FHW3.shape[1:3])
        frames = max(1, self.pixels_per_pass // predicted_FHW3[0, ..., 0].numel())
        recompute = predicted_FHW3.requires_grad and len(predicted_FHW3) > frames
        found = []
        for pair in zip(predicted_FHW3.split(frames), target_FHW3.detach().split(frames)):
            found.append(
                checkpoint(self._distance, *pair, use_reentrant=False, preserve_rng_state=False)
                if recompute
                else self._distance(*pair)
            )
        return torch.cat(found)

    def _distance(self, predicted_FHW3: torch.Tensor, target_FHW3: torch.Tensor) -> torch.Tensor:
        distance_F = torch.zeros(len(predicted_FHW3), device=predicted_FHW3.device)
        with torch.autocast(predicted_FHW3.device.type, enabled=False):
            features = zip(self._features(predicted_FHW3), self._features(target_FHW3), self.heads)
            for predicted_FCHW, target_FCHW, head_C in features:
                squared_FCHW = (_unit(predicted_FCHW) - _unit(target_FCHW)).square()
                weighted_FHW = torch.einsum("fchw,c->fhw", squared_FCHW, head_C)
                distance_F = distance_F + weighted_FHW.mean(dim=(1, 2))
        return distance_F

    def _features(self, pixels_FHW3: torch.Tensor) -> list[torch.Tensor]:
        scaled_FHW3 = (pixels_FHW3.float() - self.shift) / self.scale
        return self.network(scaled_FHW3.permute(0, 3, 1, 2))


def _unit(features_FCHW: torch.Tensor) -> torch.Tensor:
    """Every position's channels as a vector of length 1. `vector_norm` has a gradient where all
    are 0, unlike the square root of a sum."""
    length_F1HW = torch.linalg.vector_norm(features_FCHW, dim=1, keepdim=True)
    return features_FCHW / (length_F1HW + _EPSILON)


def check_size(height: int, width: int) -> None:
    """ConfigError for frames that the last block would have nothing left of."""
    if min(height, width) < SMALLEST_SIDE:
        raise ConfigError(
            f"frames are {height} x {width}, but VGG16 needs at least {SMALLEST_SIDE} x "
            f"{SMALLEST_SIDE}; use larger frames, or no perceptual distance"
        )


def load_perceptual(
    network: Network, weights: str | None = None, device: torch.device | str = "cpu"
) -> PerceptualDistance:
    """The distance `network`, from its published files or from a file of one's own.

    Args:
        weights: a folder to look in before the usual ones (see `vgg_files`), or a file that is
            taken as it is: for "lpips" a state dict by torchvision's names, which may hold the
            heads by lpips' names too; for "hed" a HED network's Keras weights.

    Raises:
        ConfigError: a file is missing; the line says where to put it and what gets it.
        CheckpointError: a file is damaged or another one.
    """
    given = Path(weights).expanduser() if weights else None
    if given is not None and not given.exists():
        raise ConfigError(f"{weights}: no such file or folder; name a perceptual network's weights")
    load = _load_hed if network == "hed" else _load_lpips
    return load(given).to(device)


def _load_lpips(given: Path | None) -> PerceptualDistance:
    own = given if given is not None and given.is_file() else None
    folder = own.parent if own else given
    path = own or find_published(VGG16, folder)
    tensors = read_state_dict(path)
    heads_path = path
    if _head_name(0) not in tensors:
        heads_path = find_published(LPIPS_HEADS, folder)
        tensors = {**tensors, **read_state_dict(heads_path)}
    heads = [
        _take(tensors, _head_name(number), (1, block[-1], 1, 1), heads_path).flatten()
        for number, block in enumerate(BLOCKS)
    ]
    is_own = own is not None and not is_published(VGG16, own)
    name = f"LPIPS-VGG of {path.name}" if is_own else "LPIPS-VGG"
    return PerceptualDistance(_network(tensors, path), heads, LPIPS_SHIFT, LPIPS_SCALE, name)


def _load_hed(given: Path | None) -> PerceptualDistance:
    own = given if given is not None and given.is_file() else None
    path = own or find_published(HED, given)
    uniform = [torch.full((block[-1],), 1 / len(BLOCKS)) for block in BLOCKS]
    is_own = own is not None and not is_published(HED, own)
    name = f"VGG(HED) of {path.name}" if is_own else "VGG(HED)"
    return PerceptualDistance(
        _network(hed.read_hed(path), path), uniform, hed.SHIFT, hed.SCALE, name
    )


def _head_name(number: int) -> str:
    return f"lin{number}.model.1.weight"


def _network(tensors: Mapping[str, Any], path: Path) -> VGGFeatures:
    with torch.device("meta"):
        network = VGGFeatures()
    expected = network.state_dict()
    found = {name: _take(tensors, name, tensor.shape, path) for name, tensor in expected.items()}
    network.load_state_dict(found, assign=True)
    return network


def _take(tensors: Mapping[str, Any], name: str, shape: Sequence[int], path: Path) -> torch.Tensor:
    """The finite fp32 tensor `name`, or a CheckpointError of what is wrong with it."""
    tensor = tensors.get(name)
    if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != tuple(shape):
        found = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else "missing"
        raise CheckpointError(
            f"{path} is not VGG16's: {name} is {found}, expected {tuple(shape)}; name another file"
        )
    if not torch.isfinite(tensor).all():
        raise CheckpointError(f"{path} is damaged: {name} is not finite; get the file again")
    return tensor.float().clone()
