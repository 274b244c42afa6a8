"""A linear path fitted to training clips, before the first step.

Of each group of planes in turn (those that differ in their part of the time alone are one) the
principal components of its cells, on what the groups before leave: the encoder's half, and what the
decoder makes of a patch's own node. Where the decoder reads the nodes around it too
(`model.linear_reach`), what their coefficients say of the rest is a ridge regression, one group
after another: without it the borders of cells show, as blocks. It is fitted to the clips and to
these mirrored and backwards, which statistics of video hardly tell from them, and as strongly as
predicts clips best that it has not seen.

Shapes: B batch, T frames, H rows, W columns, L cells of a group's planes, C channels, A = nodes * C
of a node and those around it, P numbers of a cell, Q numbers of a patch, K patches of a cell.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from einops import rearrange

from coordtok.config.models import TokenizerModelConfig
from coordtok.errors import ConfigError
from coordtok.geometry.latent import Plane, Size3
from coordtok.geometry.pixels import from_uint8
from coordtok.models.linear_path import cell_size, cut, nodes_around, uncut

_MOST_NUMBERS = 1 << 27
"""Of all cells of a group that principal components are taken of."""
_LEAST_STD = 1e-6
_OVERSAMPLING = 16
_POWER_ITERATIONS = 3
_MOST_CLIPS_AT_ONCE = 8
_LEAST_DIAGONAL = 1e-6
"""Of a regression, in units of the largest: a channel may be zero in every clip."""
_RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Of what is added to the diagonal of a regression, in units of it; the best is taken, or none."""


class PlaneCodec(NamedTuple):
    """A linear codec in the shape of a group of planes."""

    group: tuple[Plane, ...]
    cell: Size3
    analysis_CP: torch.Tensor
    synthesis_CP: torch.Tensor

    def split(self, rest_BTHW3: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The coefficients, (B, L, C), and what they leave."""
        frames, height, width = rest_BTHW3.shape[1:4]
        coefficients_BLC = cut(rest_BTHW3, self.cell) @ self.analysis_CP.T
        explained = uncut(coefficients_BLC @ self.synthesis_CP, self.cell, (frames, height, width))
        return coefficients_BLC, rest_BTHW3 - explained


@contextmanager
def _all_cores() -> Iterator[None]:
    """Launchers give each rank one thread, and the others wait for the one that fits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(max(threads, len(os.sched_getaffinity(0))))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_all_cores()
@torch.no_grad()
def fit(config: TokenizerModelConfig, clips_BTHW3: torch.Tensor) -> dict[str, torch.Tensor]:
    """The linear path's parameters by their names in `CoordTok`, fitted to clips (uint8) on all
    cores that this process may use.

    Coefficients have unit variance. The same clips give the same values on as many cores.

    Raises:
        ConfigError: fewer cells than channels.
    """
    mean_3, codecs = _components(config, clips_BTHW3)
    weights = {"encoder.linear.mean": mean_3, "decoder.linear.mean": mean_3}
    syntheses = [codec.synthesis_CP for codec in codecs]
    if config.linear_reach:
        syntheses = _with_nodes_around(config, clips_BTHW3, mean_3, codecs)
    for number, (codec, synthesis_AP) in enumerate(zip(codecs, syntheses)):
        weights[f"encoder.linear.cells.{number}.analysis"] = codec.analysis_CP
        if codec is not codecs[-1]:
            weights[f"encoder.linear.cells.{number}.synthesis"] = codec.synthesis_CP
        weights[f"decoder.linear.cells.{number}.synthesis"] = _by_patch(
            synthesis_AP, codec.cell, config.decoder_patch
        )
    return weights


def principal_components(rows_LP: torch.Tensor, count: int, power_iterations: int) -> torch.Tensor:
    """The first `count` right singular vectors of `rows_LP`, (count, P), by randomised subspace
    iteration (Halko et al. 2011): the same on every call, with torch's generator left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rank = min(count + _OVERSAMPLING, *rows_LP.shape)
        _, _, basis = torch.svd_lowrank(rows_LP, rank, power_iterations)
    return basis[:, :count].T.contiguous()


def _components(
    config: TokenizerModelConfig, clips_BTHW3: torch.Tensor
) -> tuple[torch.Tensor, list[PlaneCodec]]:
    """The mean colour, and of each group the principal components on what those before leave."""
    rest = from_uint8(clips_BTHW3)
    mean_3 = rest.mean((0, 1, 2, 3))
    rest -= mean_3
    codecs = []
    for group in config.latent.plane_groups:
        cell = cell_size(group, config.video_size)
        components_CP, std_C = _principal_components(_some_cells(rest, cell), group)
        scale_C1 = std_C[:, None]
        codecs.append(PlaneCodec(group, cell, components_CP / scale_C1, components_CP * scale_C1))
        for clip in rest.split(1):  # one by one: the cells of all would be a copy of all clips
            clip.copy_(codecs[-1].split(clip)[1])
    return mean_3, codecs


def _some_cells(clips_BTHW3: torch.Tensor, cell: Size3) -> torch.Tensor:
    """(L, P), as many as `_MOST_NUMBERS` allow, spread evenly over all."""
    parts, before = [], 0
    numbers = math.prod(cell) * 3
    per_clip = math.prod(clips_BTHW3.shape[1:]) // numbers
    step = -(-len(clips_BTHW3) * per_clip * numbers // _MOST_NUMBERS)
    for clip in clips_BTHW3.split(1):
        parts.append(cut(clip, cell)[0, -before % step :: step])
        before += per_clip
    return torch.cat(parts)


def _principal_components(
    cells_LP: torch.Tensor, group: Sequence[Plane]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal rows (C, P), and the standard deviations of their coefficients, (C,)."""
    plane = group[0]
    if len(cells_LP) < plane.channels:
        those = f" and the {len(group) - 1} like it" if len(group) > 1 else ""
        raise ConfigError(
            f"the training clips have {len(cells_LP)} cells for {plane}{those}, fewer than its "
            "channels; give more clips, or set model.linear_path=false"
        )
    components_CP = principal_components(cells_LP, plane.channels, _POWER_ITERATIONS)
    std_C = (cells_LP @ components_CP.T).square().mean(0).sqrt()
    return components_CP, std_C.clamp(min=_LEAST_STD)


def _with_nodes_around(
    config: TokenizerModelConfig,
    clips_BTHW3: torch.Tensor,
    mean_3: torch.Tensor,
    codecs: Sequence[PlaneCodec],
) -> list[torch.Tensor]:
    """What a cell's node and those around it say of the cell, (A, P) of each group. Every second
    batch of clips is unseen while the ridge is chosen; of a single clip nothing is said."""
    at_once = min(_MOST_CLIPS_AT_ONCE, -(-len(clips_BTHW3) // 2))
    around = [_around(codec.group, config.linear_reach) for codec in codecs]
    added: list[torch.Tensor] = []
    for number, codec in enumerate(codecs):
        sizes = around[number].shape[1] * codec.group[0].channels, math.prod(codec.cell) * 3
        sums = _Regression(*sizes), _Regression(*sizes)
        for batch, video in enumerate(clips_BTHW3.split(at_once)):
            for rest in _varied(from_uint8(video) - mean_3):
                near = []
                for each, nodes_Lk in zip(codecs, around):
                    coefficients_BLC, rest = each.split(rest)
                    near.append(coefficients_BLC[:, nodes_Lk].flatten(2))
                for each, near_BLA, added_AP in zip(codecs, near, added):
                    rest -= uncut(near_BLA @ added_AP, each.cell, config.video_size)
                sums[batch % 2].add(near[number], cut(rest, codec.cell))
        added.append(_ridge(*sums))
    return [_onto_own_node(codec, each) for codec, each in zip(codecs, added)]


def _around(group: Sequence[Plane], reach: int) -> torch.Tensor:
    """(L, nodes): of every node of a group's planes those around it on its plane."""
    size = group[0].size
    nodes = torch.arange(math.prod(size))
    nodes_Lk = nodes_around(nodes // size[1], nodes % size[1], size, reach)
    return torch.cat([nodes_Lk + number * len(nodes) for number in range(len(group))])


def _onto_own_node(codec: PlaneCodec, added_AP: torch.Tensor) -> torch.Tensor:
    """The sum of what a cell's own node, in the middle, says and of what all of them add."""
    whole_kCP = added_AP.unflatten(0, (-1, codec.group[0].channels)).clone()
    whole_kCP[len(whole_kCP) // 2] += codec.synthesis_CP
    return whole_kCP.flatten(0, 1)


def _varied(video_BTHW3: torch.Tensor) -> Iterator[torch.Tensor]:
    """The clips, these mirrored, backwards, and both."""
    for dims in ((), (3,), (1,), (1, 3)):
        yield video_BTHW3.flip(dims)


class _Regression:
    """Sums of products, of which a regression of rows of P on rows of A is made."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.inputs_AA = torch.zeros(inputs, inputs)
        self.products_AP = torch.zeros(inputs, outputs)

    def add(self, inputs_BLA: torch.Tensor, outputs_BLP: torch.Tensor) -> None:
        inputs_AM = inputs_BLA.flatten(0, 1).T
        self.inputs_AA.addmm_(inputs_AM, inputs_AM.T)
        self.products_AP.addmm_(inputs_AM, outputs_BLP.flatten(0, 1))

    def solved(self, ridge: float) -> torch.Tensor:
        """(A, P)."""
        inputs_AA = self.inputs_AA.double()
        diagonal_A = inputs_AA.diagonal()
        least = max(float(diagonal_A.max()), 1.0) * _LEAST_DIAGONAL
        diagonal_A += ridge * diagonal_A.clamp(min=least)
        lower_AA = torch.linalg.cholesky(inputs_AA)
        return torch.cholesky_solve(self.products_AP.double(), lower_AA).float()

    def gain(self, weights_AP: torch.Tensor) -> float:
        """By how much less the squared error is than without these weights."""
        explained = 2 * self.products_AP - self.inputs_AA @ weights_AP
        return float((weights_AP * explained).sum())


def _ridge(known: _Regression, unseen: _Regression) -> torch.Tensor:
    """The regression on all rows, with the ridge by which one on the known rows predicts those
    that are unseen best; zero where none helps."""
    gains = {ridge: unseen.gain(known.solved(ridge)) for ridge in _RIDGES}
    best = max(gains, key=gains.__getitem__)
    if not gains[best] > 0:
        return torch.zeros_like(known.products_AP)
    known.inputs_AA += unseen.inputs_AA
    known.products_AP += unseen.products_AP
    return known.solved(best)


def _by_patch(synthesis_AP: torch.Tensor, cell: Size3, patch: Size3) -> torch.Tensor:
    """(K, A, Q)."""
    (u, v, w), (t, y, x) = (whole // part for whole, part in zip(cell, patch)), patch
    return rearrange(
        synthesis_AP, "a (u t v y w x d) -> (u v w) a (t y x d)", u=u, v=v, w=w, t=t, y=y, x=x, d=3
    ).contiguous()
