"""The tensors of a latent: named planes, read at a coordinate by bilinear interpolation.

Shapes: B batch, N coordinates (t, y, x) in [0, 1], C channels; T', H', W' sizes of the paper's
planes, R and S rows and columns of any one plane; L tokens of a plane, P numbers of a token's
patch; M all numbers of a latent.
"""

from collections import namedtuple
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import torch
from einops import rearrange

from coordtok.geometry.latent import AXES, WHOLE, LatentShape, Plane

PlanesT = TypeVar("PlanesT", bound="Planes")


class Planes(tuple[torch.Tensor, ...]):
    """A latent's planes, channels last, in the order of its `LatentShape`.

    Those of one shape are a named tuple of tensors (`planes_of` makes it, `Triplane` is the paper's
    shape), so that engines which walk a module's inputs and outputs for tensors (ZeRO-3,
    checkpointing, pinned memory) find them.
    """

    __slots__ = ()

    if TYPE_CHECKING:  # what every named tuple has
        _fields: ClassVar[tuple[str, ...]]

        @classmethod
        def _make(cls: type[PlanesT], iterable: Iterable[torch.Tensor]) -> PlanesT: ...

        def _asdict(self) -> dict[str, torch.Tensor]: ...

    def __reduce__(self) -> tuple[Any, ...]:
        """By their names: the types of other planes than the paper's are no attribute of a module,
        where pickle would look for them."""
        return _planes_named, (self._fields, tuple(self))

    @property
    def batch(self) -> int:
        """B, how many latents these are."""
        return len(self[0])

    def map(self: PlanesT, function: Callable[[torch.Tensor], torch.Tensor]) -> PlanesT:
        return self._make(function(plane) for plane in self)

    def one(self: PlanesT, number: int) -> PlanesT:
        """A latent of the batch, as a batch of its own."""
        return self.map(lambda plane: plane[number : number + 1])

    def to(self: PlanesT, *args: Any, **kwargs: Any) -> PlanesT:
        """As `torch.Tensor.to`, on every plane."""
        return self.map(lambda plane: plane.to(*args, **kwargs))


class _Triplane(NamedTuple):
    xy: torch.Tensor
    """(B, H', W', C): over space."""
    yt: torch.Tensor
    """(B, T', H', C): over time and rows."""
    xt: torch.Tensor
    """(B, T', W', C): over time and columns."""


class Triplane(Planes, _Triplane):  # type: ignore[misc]  # both declare _fields and _make
    """A factorised latent video (docs/method.md, "The idea"): xy over space, yt over time and rows,
    xt over time and columns."""

    __slots__ = ()


_TYPES: dict[tuple[str, ...], type[Planes]] = {Triplane._fields: Triplane}
"""The kinds of planes by their names."""


def planes_of(latent: LatentShape, tensors: Iterable[torch.Tensor]) -> Planes:
    """The tensors of the planes of `latent`, in its order, by their names."""
    return _planes_named(latent.names, tensors)


def _planes_named(names: tuple[str, ...], tensors: Iterable[torch.Tensor]) -> Planes:
    if names not in _TYPES:
        _TYPES[names] = type("Planes", (Planes, namedtuple("Planes", names)), {"__slots__": ()})
    return _TYPES[names]._make(tensors)


def by_group(planes: Planes, latent: LatentShape) -> list[list[torch.Tensor]]:
    """The tensors of each of `latent.plane_groups`."""
    left = iter(planes)
    return [list(islice(left, len(group))) for group in latent.plane_groups]


def pack(planes: Planes) -> torch.Tensor:
    """All numbers of each latent, (B, M): the planes row-major, one after another."""
    return torch.cat([plane.flatten(1) for plane in planes], dim=1)


def unpack(flat_BM: torch.Tensor, latent: LatentShape) -> Planes:
    """The inverse of `pack`; views of `flat_BM`."""
    parts = flat_BM.split([plane.numbers for plane in latent.planes], dim=1)
    shaped = zip(parts, latent.planes)
    return planes_of(latent, (part.unflatten(1, plane.shape) for part, plane in shaped))


def to_patches(plane_BRSC: torch.Tensor, plane: Plane) -> torch.Tensor:
    """The patch of each token, (B, L, P): tokens row-major, of a patch (row, column, channel)."""
    rows, columns = plane.patch
    return rearrange(plane_BRSC, "b (r p) (s q) c -> b (r s) (p q c)", p=rows, q=columns)


def from_patches(patches_BLP: torch.Tensor, plane: Plane) -> torch.Tensor:
    """The inverse of `to_patches`: (B, R, S, C), contiguous as files want it."""
    (rows, columns), (ph, pw) = plane.grid, plane.patch
    plane_BRSC = rearrange(
        patches_BLP, "b (r s) (p q c) -> b (r p) (s q) c", r=rows, s=columns, p=ph, q=pw
    )
    return plane_BRSC.contiguous()


def read_at(planes: Planes, coords_BN3: torch.Tensor, latent: LatentShape) -> torch.Tensor:
    """Read the planes at coordinates: (B, N, `latent.features`).

    Of each plane as `grid_sample(align_corners=True, padding_mode="border")`, but its gradient is a
    matrix product too, hence the same on every run: grid_sample's adds up with atomics on a GPU.
    Zero where the time is outside the plane's part, so that the sum over a group of content planes
    is what the one of that time holds. Computed in float32 or wider, also under autocast.
    """
    with torch.autocast(coords_BN3.device.type, enabled=False):
        dtype = torch.promote_types(planes[0].dtype, torch.float32)
        axes_BN = dict(zip(AXES, coords_BN3.to(dtype).unbind(-1)))
        lines = {line: None for plane in latent.planes for line in _lines(plane)}
        weights = {line: _line_weights(axes_BN[line[0]], line) for line in lines}
        features = []
        for group, tensors in zip(latent.plane_groups, by_group(planes.to(dtype), latent)):
            reads_BNC = [
                _zero_outside(
                    _read(plane_BRSC, *(weights[line] for line in _lines(plane))),
                    axes_BN["t"],
                    plane.time,
                )
                for plane, plane_BRSC in zip(group, tensors)
            ]
            features.append(sum(reads_BNC[1:], start=reads_BNC[0]))
        return torch.cat(features, dim=-1)


Line = tuple[str, int, tuple[float, float]]
"""Nodes along an axis: which one, how many, and over which part of [0, 1]."""


def _lines(plane: Plane) -> list[Line]:
    """Of its rows and of its columns; planes that share one share its weights."""
    extents = zip(plane.axes, plane.size)
    return [(axis, nodes, plane.time if axis == "t" else WHOLE) for axis, nodes in extents]


def _line_weights(coordinate_BN: torch.Tensor, line: Line) -> torch.Tensor:
    """(B, N, nodes)."""
    _, nodes, (start, stop) = line
    if (start, stop) != WHOLE:
        coordinate_BN = (coordinate_BN - start) / (stop - start)
    return hat_weights(coordinate_BN, nodes)


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


def _zero_outside(
    read_BNC: torch.Tensor, time_BN: torch.Tensor, part: tuple[float, float]
) -> torch.Tensor:
    """Zero where the time is not in [start, stop); a part that stops at 1 includes it."""
    if part == WHOLE:
        return read_BNC
    (start, stop), time_BN = part, time_BN.clamp(0, 1)
    is_outside_BN = (time_BN < start) | ((time_BN >= stop) & (stop < 1))
    return read_BNC.masked_fill(is_outside_BN.unsqueeze(-1), 0)
