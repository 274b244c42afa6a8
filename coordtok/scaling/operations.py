"""The matrix products and attentions that a model makes of one clip, by part of the model.

What training costs in operations (flops.py), in memory (activations.py) and in time (times.py) is
read from this one list.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from coordtok.config.models import DiTModelConfig, TokenizerModelConfig
from coordtok.config.schema import RunConfig
from coordtok.geometry.latent import LatentShape
from coordtok.scaling.parameters import TIME_FREQUENCIES, linear_nodes


@dataclass(frozen=True)
class Operation:
    """A product of `rows` x `inputs` with `inputs` x `outputs`, or an attention of `rows` queries
    to `inputs` keys over `outputs` numbers each, all heads together. A multiplication and an
    addition are two operations."""

    kind: Literal["product", "attention"]
    rows: int
    inputs: int
    outputs: int
    times: int = 1
    """How often, in as many layers."""
    input_gradient: bool = True
    """Whether the backward pass goes on beyond it."""
    is_between: bool = False
    """Whether selective checkpointing makes it again: it lies between self-attentions, and
    something there needs its result."""
    is_last: bool = False
    """Whether only what comes after its block needs its result, so that none makes it again."""

    @property
    def forward(self) -> float:
        """Operations of the forward pass."""
        products = 2 if self.kind == "attention" else 1
        return 2.0 * products * self.rows * self.inputs * self.outputs * self.times

    @property
    def backward(self) -> float:
        """Two products for each of the forward pass, one where the input needs no gradient;
        attention makes five for two, since its weights are computed again."""
        if self.kind == "attention":
            return 2.5 * self.forward
        return self.forward * (2 if self.input_gradient else 1)


def operations(run: RunConfig) -> dict[str, list[Operation]]:
    """Of one clip, by part of the model."""
    parts = (
        _generator(run.model)
        if isinstance(run.model, DiTModelConfig)
        else _tokenizer(run.model, run.train.points)
    )
    return {name: list(made) for name, made in parts}


def product(
    rows: int, inputs: int, outputs: int, times: int = 1, input_gradient: bool = True
) -> Operation:
    """Of `rows` vectors with a matrix."""
    return Operation("product", rows, inputs, outputs, times, input_gradient)


def attention(queries: int, keys: int, dim: int) -> Operation:
    """Of all heads together, projections left out."""
    return Operation("attention", queries, keys, dim)


def _repeated(made: list[Operation], layers: int) -> list[Operation]:
    return [replace(each, times=each.times * layers) for each in made] if layers else []


def recomputed(run: RunConfig) -> list[Operation]:
    """Of one clip, forward passes that activation checkpointing makes again."""
    kind = run.train.activation_checkpointing
    in_blocks = [each for name, part in operations(run).items() if "block" in name for each in part]
    if kind == "selective":
        return [each for each in in_blocks if each.is_between]
    return [each for each in in_blocks if not each.is_last] if kind else []


def _between(each: Operation) -> Operation:
    return replace(each, is_between=True)


def _vit_block(tokens: int, dim: int, ratio: float) -> list[Operation]:
    hidden = int(dim * ratio)
    return [
        product(tokens, dim, 3 * dim),
        attention(tokens, tokens, dim),
        _between(product(tokens, dim, dim)),
        _between(product(tokens, dim, hidden)),
        replace(product(tokens, hidden, dim), is_last=True),
    ]


def _cross_block(model: TokenizerModelConfig, tokens: int, memory: int) -> list[Operation]:
    dim = model.dim
    if model.projects_memory:
        projections = [product(tokens, dim, dim, times=2), product(memory, dim, 2 * dim)]
        cross = [*projections, attention(tokens, memory, dim)]
    else:
        queries = tokens * model.heads
        read = [product(queries, dim, memory), product(queries, memory, dim)]
        cross = [product(tokens, dim, dim, times=4), *read]
    return [*map(_between, cross), *_vit_block(tokens, dim, model.mlp_ratio)]


def _tokenizer(model: TokenizerModelConfig, points: int) -> Iterator[tuple[str, list[Operation]]]:
    dim, ratio, latent = model.dim, model.mlp_ratio, model.latent
    tubelets = prod(model.video_size) // prod(model.video_patch)
    tokens = sum(latent.tokens)
    video, pixels = prod(model.video_patch) * 3, prod(model.decoder_patch) * 3
    yield "video embedding", [product(tubelets, video, dim, input_gradient=False)]
    yield "video blocks", _repeated(_vit_block(tubelets + 1, dim, ratio), model.video_layers)
    block = _cross_block(model, tokens, tubelets)
    yield "plane blocks", _repeated(block, model.plane_layers)
    yield "plane heads", [product(each.tokens, dim, each.patch_numbers) for each in latent.planes]
    yield "reading planes", list(_read(latent, points))
    yield "point embedding", [product(points, latent.features, dim)]
    yield "decoder blocks", _repeated(_vit_block(points, dim, ratio), model.decoder_layers)
    yield "pixel head", [product(points, dim, pixels)]
    if model.linear_path:
        yield "linear path", list(_linear_path(model, points))


def _linear_path(model: TokenizerModelConfig, points: int) -> Iterator[Operation]:
    """All pixels to coefficients, and back but for the last group of planes; nodes of all to each
    patch."""
    pixels, patch = prod(model.video_size) * 3, prod(model.decoder_patch) * 3
    groups = model.latent.plane_groups
    for group in groups:
        cells = len(group) * prod(group[0].size)
        back = group is not groups[-1]
        yield product(cells, pixels // cells, group[0].channels, times=1 + back)
    yield product(points, linear_nodes(model) * model.latent.features, patch)


def _read(latent: LatentShape, points: int) -> Iterator[Operation]:
    """Interpolation along the rows of each plane, which is a matrix product."""
    for plane in latent.planes:
        rows, columns = plane.size
        yield product(points, rows, columns * plane.channels, input_gradient=False)


def _generator(model: DiTModelConfig) -> Iterator[tuple[str, list[Operation]]]:
    dim, planes = model.dim, model.latent.planes
    tokens = sum(each.tokens for each in planes)
    yield (
        "plane embedding",
        [product(each.tokens, each.patch_numbers, dim, input_gradient=False) for each in planes],
    )
    yield (
        "time embedding",
        [product(1, TIME_FREQUENCIES, dim, input_gradient=False), product(1, dim, dim)],
    )
    gated = [replace(each, is_last=False) for each in _vit_block(tokens, dim, model.mlp_ratio)]
    block = [*gated, product(1, dim, 6 * dim)]
    yield "blocks", _repeated(block, model.layers)
    heads = [product(each.tokens, dim, each.patch_numbers) for each in planes]
    yield "velocities", [*heads, product(1, dim, 2 * dim, times=len(planes))]
