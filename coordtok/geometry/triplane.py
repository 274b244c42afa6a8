"""The latent of a video: three planes, read at a coordinate by bilinear interpolation.

Shapes: B batch, N coordinates (t, y, x) in [0, 1], C channels; T', H', W' are plane sizes, R and S
rows and columns of any one plane; M all numbers of a latent.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from coordtok.geometry.grid import Size3

PLANE_AXES = ((1, 2), (0, 1), (0, 2))
"""The two axes of (t, y, x) that each plane spans: xy, yt, xt."""


class Triplane(NamedTuple):
    """A factorised latent video (PAPER: the idea), channels last.

    A named tuple of tensors, so that engines which walk a module's inputs and outputs for tensors
    (ZeRO-3, checkpointing, pinned memory) find them.
    """

    xy: torch.Tensor
    """(B, H', W', C): over space."""
    yt: torch.Tensor
    """(B, T', H', C): over time and rows."""
    xt: torch.Tensor
    """(B, T', W', C): over time and columns."""

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "Triplane":
        return Triplane(*(function(plane) for plane in self))

    def one(self, number: int) -> "Triplane":
        """A latent of the batch, as a batch of its own."""
        return self.map(lambda plane: plane[number : number + 1])

    def to(self, *args: Any, **kwargs: Any) -> "Triplane":
        """As `torch.Tensor.to`, on every plane."""
        return self.map(lambda plane: plane.to(*args, **kwargs))


def plane_shape(plane_size: Size3, axes: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the plane over two `axes` of (t, y, x)."""
    rows, columns = axes
    return plane_size[rows], plane_size[columns]


def latent_size(plane_size: Size3, channels: int) -> int:
    """M, the numbers of a latent with planes of `plane_size` (T', H', W')."""
    return channels * sum(math.prod(plane_shape(plane_size, axes)) for axes in PLANE_AXES)


def pack(planes: Triplane) -> torch.Tensor:
    """All numbers of each latent, (B, M): xy, yt and xt, row-major, one after another."""
    return torch.cat([plane.flatten(1) for plane in planes], dim=1)


def unpack(flat_BM: torch.Tensor, plane_size: Size3, channels: int) -> Triplane:
    """The inverse of `pack`, for planes of `plane_size` (T', H', W'); views of `flat_BM`."""
    shapes = [(*plane_shape(plane_size, axes), channels) for axes in PLANE_AXES]
    parts = flat_BM.split([math.prod(shape) for shape in shapes], dim=1)
    return Triplane(*(part.unflatten(1, shape) for part, shape in zip(parts, shapes)))


def hat_weights(coordinate_BN: torch.Tensor, size: int) -> torch.Tensor:
    """Linear interpolation's weight of each of `size` equally spaced nodes, (B, N, size).

    The ends are nodes (align_corners) and coordinates outside are moved to the border.
    """
    position = coordinate_BN.clamp(0, 1).mul_(size - 1).unsqueeze(-1)
    nodes = torch.arange(size, dtype=position.dtype, device=position.device)
    return (position - nodes).abs_().neg_().add_(1).clamp_(min=0)


def _read(
    plane_BRSC: torch.Tensor, weight_BNR: torch.Tensor, weight_BNS: torch.Tensor
) -> torch.Tensor:
    """Bilinear interpolation of a plane, first along its rows, then along its columns: (B, N, C).

    Four times faster on a CPU, with a fraction of the memory, than one product with the joint
    weights of all nodes.
    """
    line_BNSC = (weight_BNR @ plane_BRSC.flatten(2)).unflatten(-1, plane_BRSC.shape[2:])
    return (weight_BNS.unsqueeze(-1) * line_BNSC).sum(dim=2)


def sample(planes: Triplane, coords_BN3: torch.Tensor) -> torch.Tensor:
    """Read the planes at coordinates: (B, N, 3C), channels of xy, then yt, then xt.

    Equal to `grid_sample(align_corners=True, padding_mode="border")`, but its gradient is a matrix
    product too, hence the same on every run: grid_sample's adds up with atomics on a GPU. Computed
    in float32 or wider, also under autocast.
    """
    with torch.autocast(coords_BN3.device.type, enabled=False):
        dtype = torch.promote_types(planes.xy.dtype, torch.float32)
        planes = planes.to(dtype)
        t, y, x = coords_BN3.to(dtype).unbind(-1)
        rows, columns = planes.xy.shape[1:3]
        weight_t = hat_weights(t, planes.yt.shape[1])
        weight_y, weight_x = hat_weights(y, rows), hat_weights(x, columns)
        features = [
            _read(planes.xy, weight_y, weight_x),
            _read(planes.yt, weight_t, weight_y),
            _read(planes.xt, weight_t, weight_x),
        ]
        return torch.cat(features, dim=-1)
