"""Muon for matrices beside AdamW for everything else, on weights that lie in slices.

Muon (Jordan et al. 2024) orthogonalises the momentum of each weight matrix before it is added. A
ZeRO rank holds only slices of flattened matrices, so each matrix's momentum meets on one rank,
which takes the matrices in turns, and its orthogonalised update goes back to all. Gathering adds
zeros to numbers, so the update is the same bits on any number of ranks.

An update's largest singular value is about the learning rate times sqrt(rows / columns), or the
learning rate alone for wide matrices, so that one rate serves all widths (Bernstein and Newhouse
2024, arXiv 2409.20325).

Shapes: M matrices of one shape, R rows, C columns.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from math import prod
from typing import Any, NamedTuple

import torch

from coordtok import distributed
from coordtok.scaling.flops import NEWTON_SCHULZ_STEPS

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al. 2024): steep at zero, and near 1 after 5."""
MOMENTUM = 0.95
_MOST_AT_ONCE = 2**26  # numbers of the matrices that one batch of products orthogonalises


class MatrixSlice(NamedTuple):
    """What this rank owns of a weight that is a stack of matrices (query, key and value in one):
    `values` (n,) are its elements from `start` on, row-major; a view into the memory that the
    optimiser updates, empty on a rank that owns nothing."""

    shape: tuple[int, int, int]
    """Matrices, rows and columns."""
    start: int
    values: torch.Tensor
    partition: int
    """Number of the optimiser's flat tensor that it lies in, the same on all ranks."""


class MuonAdamW(torch.optim.AdamW):
    """torch's AdamW, but for parameter groups with `matrices: True`, whose matrices get Muon.

    A group's matrices are known once `attach` has said where they lie; until then its steps make
    the optimiser's state and nothing else, which is what DeepSpeed's first step is for.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, lr=lr)
        self._slices: dict[int, list[MatrixSlice]] = {}
        self._partition_of: Callable[[torch.Tensor], int] = id

    def attach(
        self, slices: Mapping[str, MatrixSlice], partition_of: Callable[[torch.Tensor], int]
    ) -> None:
        """Say where the matrices lie, by name, with the same names on all ranks; `partition_of`
        gives the number of a tensor that the groups hold."""
        ordered = sorted(slices.items(), key=lambda item: (item[1].partition, item[0]))
        for partition, items in groupby(ordered, key=lambda item: item[1].partition):
            self._slices[partition] = [piece for _, piece in items]
        self._partition_of = partition_of

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update; all ranks call it together."""
        held = [(group, group["params"]) for group in self.param_groups if group["matrices"]]
        for group, parameters in held:
            for parameter in parameters:
                if parameter.grad is not None:
                    self._update(group, parameter, parameter.grad)
            group["params"] = []
        try:
            return super().step(closure)
        finally:
            for group, parameters in held:
                group["params"] = parameters

    def _update(
        self, group: dict[str, Any], parameter: torch.Tensor, gradient: torch.Tensor
    ) -> None:
        """Muon for all matrices that lie in one tensor of the optimiser."""
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        slices = self._slices.get(self._partition_of(parameter))
        if slices is None:
            return
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - MOMENTUM)
        direction = gradient.lerp(momentum, MOMENTUM).flatten()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        whole = parameter.flatten()
        places = [_place(whole, piece) for piece in slices]
        for batch in _batches(slices):
            own = [direction[places[number]] for number in batch]
            updates = _orthogonalised([slices[number] for number in batch], own)
            for number, update in zip(batch, updates):
                _, rows, columns = slices[number].shape
                scale = max(1.0, rows / columns) ** 0.5
                slices[number].values.sub_(update, alpha=group["lr"] * scale)


def orthogonalise(matrices_MRC: torch.Tensor) -> torch.Tensor:
    """Each matrix with all its singular values near 1 (0.7 to 1.2), float32.

    Five Newton-Schulz steps, in bfloat16 on a GPU and in float32 on a CPU, whose bfloat16 products
    are the slower ones.
    """
    dtype = torch.bfloat16 if matrices_MRC.device.type == "cuda" else torch.float32
    x_MRC = matrices_MRC.to(dtype)
    wide = x_MRC.shape[1] <= x_MRC.shape[2]
    x_MRC = x_MRC if wide else x_MRC.mT
    x_MRC = x_MRC / x_MRC.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram_MRR = x_MRC @ x_MRC.mT
        mixed_MRR = torch.baddbmm(gram_MRR, gram_MRR, gram_MRR, beta=b, alpha=c)
        x_MRC = torch.baddbmm(x_MRC, mixed_MRR, x_MRC, beta=a)
    return (x_MRC if wide else x_MRC.mT).float()


def _place(whole: torch.Tensor, piece: MatrixSlice) -> slice:
    """Where a slice lies in the flat tensor that holds it."""
    if not piece.values.numel():
        return slice(0, 0)
    first = (piece.values.data_ptr() - whole.data_ptr()) // whole.element_size()
    return slice(first, first + piece.values.numel())


def _batches(slices: Sequence[MatrixSlice]) -> list[list[int]]:
    """Numbers of the weights that are orthogonalised together: of one shape, not too many."""
    by_shape: dict[tuple[int, int, int], list[int]] = {}
    for number, piece in enumerate(slices):
        by_shape.setdefault(piece.shape, []).append(number)
    batches = []
    for shape, numbers in by_shape.items():
        size = max(1, _MOST_AT_ONCE // prod(shape)) * distributed.world_size()
        batches += [numbers[first : first + size] for first in range(0, len(numbers), size)]
    return batches


def _orthogonalised(
    pieces: Sequence[MatrixSlice], own: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """This rank's slices of the orthogonalised matrices, given its slices of those as they are."""
    shape, device = pieces[0].shape, own[0].device
    wholes = [torch.zeros(prod(shape), device=device) for _ in pieces]
    for whole, piece, values in zip(wholes, pieces, own):
        whole[piece.start : piece.start + len(values)] = values
    rank, ranks = distributed.rank(), distributed.world_size()
    owners = [number % ranks for number in range(len(pieces))]
    distributed.sum_each_on(wholes, owners)
    mine = wholes[rank::ranks]
    if mine:
        done_MRC = orthogonalise(torch.stack(mine).view(-1, *shape[1:]))
        for whole, done in zip(mine, done_MRC.reshape(len(mine), -1)):
            whole.copy_(done)
    distributed.broadcast_each_from(wholes, owners)
    return [
        whole[piece.start : piece.start + piece.values.numel()]
        for whole, piece in zip(wholes, pieces)
    ]
