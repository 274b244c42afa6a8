"""What a clip's forward pass keeps for the backward pass: a formula, by part of the model.

Counted is what autograd saves on a GPU with a fused attention: inputs of matrix products, norms and
activations, and of attention queries, keys, values, output and log-sum-exp. Weights are not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from coordtok.config.models import DiTModelConfig, ModelConfig, TokenizerModelConfig
from coordtok.config.schema import RunConfig
from coordtok.scaling.parameters import linear_nodes

_STATISTICS = 8
"""Bytes of a norm for each token: mean and deviation in float32."""
_FLOAT = 4


@dataclass(frozen=True)
class Kept:
    """Bytes of one clip, of all of a part's layers together."""

    plain: float
    """Without recomputation."""
    recomputed: float
    """With `train.activation_checkpointing`: what enters each block."""
    selective: float
    """With "selective" of it: what enters a block and its self-attention, and what that gives."""
    at_once: float = 0.0
    """Beside either, the insides of the one block that is being recomputed."""


def kept_for_backward(run: RunConfig, number: int) -> dict[str, Kept]:
    """By part of the model. number: bytes of one in the precision that computes, 2 or 4."""
    model = run.model
    if isinstance(model, DiTModelConfig):
        return dict(_generator(model, number))
    return dict(_tokenizer(model, run.train.points, number))


def activation_bytes(run: RunConfig, number: int) -> float:
    """Bytes of one clip at the moment when most is kept."""
    parts = kept_for_backward(run, number).values()
    kind = run.train.activation_checkpointing
    if not kind:
        return sum(part.plain for part in parts)
    kept = (part.selective if kind == "selective" else part.recomputed for part in parts)
    return sum(kept) + max(part.at_once for part in parts)


def _attention(tokens: int, dim: int, heads: int, number: int) -> float:
    """Input of the projections, queries, keys, values, output, log-sum-exp."""
    return tokens * (5 * dim * number + heads * _FLOAT)


def _mlp(tokens: int, dim: int, hidden: int, number: int) -> float:
    """Input, and what goes into and comes out of the activation."""
    return tokens * number * (dim + 2 * hidden)


def _norm(tokens: int, dim: int, number: int) -> float:
    return tokens * (dim * number + _STATISTICS)


def _vit_block(model: TokenizerModelConfig, tokens: int, number: int) -> float:
    dim, hidden = model.dim, int(model.dim * model.mlp_ratio)
    norms = 2 * _norm(tokens, dim, number)
    return norms + _attention(tokens, dim, model.heads, number) + _mlp(tokens, dim, hidden, number)


def _cross_block(model: TokenizerModelConfig, tokens: int, memory: int, number: int) -> float:
    """The memory itself is kept once for all blocks; its keys and values, or of each head queries,
    weights, in float32 too, and mix."""
    dim, queries = model.dim, tokens * model.heads
    cross = _norm(tokens, dim, number) + 3 * tokens * dim * number
    if model.projects_memory:
        cross += 2 * memory * dim * number + queries * _FLOAT
    else:
        weights = _FLOAT if number == _FLOAT else _FLOAT + number
        cross += queries * (2 * dim * number + memory * weights)
    return cross + _vit_block(model, tokens, number)


def _dit_block(model: DiTModelConfig, tokens: int, number: int) -> float:
    """Of each half the normed tokens, which are scaled, and the result, which is gated, as well."""
    dim, hidden = model.dim, int(model.dim * model.mlp_ratio)
    modulated = 2 * (_norm(tokens, dim, number) + 2 * tokens * dim * number) + 7 * dim * number
    halves = _attention(tokens, dim, model.heads, number) + _mlp(tokens, dim, hidden, number)
    return modulated + halves


def _blocks(
    model: ModelConfig, layers: int, block: float, tokens: int, number: int, entering: int = 1
) -> Kept:
    """entering: vectors of a token, beside those of its attention, that enter or leave the parts of
    a block which are computed again."""
    if not layers:
        return _same(0.0)
    token = model.dim * number
    attention = tokens * (4 * token + model.heads * _FLOAT)
    selective = layers * (tokens * entering * token + attention)
    return Kept(layers * block, layers * tokens * token, selective, block)


def _same(kept: float) -> Kept:
    return Kept(kept, kept, kept)


def _tokenizer(model: TokenizerModelConfig, points: int, number: int) -> Iterator[tuple[str, Kept]]:
    dim, latent = model.dim, model.latent
    video, tokens = prod(model.video_size) * 3, sum(latent.tokens)
    tubelets = prod(model.video_size) // prod(model.video_patch)
    pixels = prod(model.decoder_patch) * 3
    yield "video embedding", _same(video * number)
    block = _vit_block(model, tubelets + 1, number)
    yield "video blocks", _blocks(model, model.video_layers, block, tubelets + 1, number)
    yield "video features", _same(_norm(tubelets + 1, dim, number) + tubelets * dim * number)
    block = _cross_block(model, tokens, tubelets, number)
    yield "plane blocks", _blocks(model, model.plane_layers, block, tokens, number, 2)
    yield "plane heads", _same(_norm(tokens, dim, number) + tokens * dim * number)
    lines = {(axis, nodes) for each in latent.planes for axis, nodes in zip(each.axes, each.size)}
    yield "reading planes", _same(points * _FLOAT * sum(nodes for _, nodes in lines))
    yield "point embedding", _same(points * latent.features * number)
    block = _vit_block(model, points, number)
    yield "decoder blocks", _blocks(model, model.decoder_layers, block, points, number)
    yield "pixel head", _same(_norm(points, dim, number) + points * dim * number)
    yield "loss", _same(points * pixels * _FLOAT)
    if model.linear_path:
        read = points * linear_nodes(model) * latent.features
        coefficients = read * (1 + pixels) + latent.numbers
        yield "linear path", _same(_FLOAT * (video * len(latent.plane_groups) + coefficients))


def _generator(model: DiTModelConfig, number: int) -> Iterator[tuple[str, Kept]]:
    dim, latent = model.dim, model.latent
    tokens = sum(latent.tokens)
    yield "plane embedding", _same(latent.numbers * number)
    block = _dit_block(model, tokens, number)
    yield "blocks", _blocks(model, model.layers, block, tokens, number, 2)
    velocities = _norm(tokens, dim, number) + 2 * tokens * dim * number
    yield "velocities", _same(velocities + latent.numbers * _FLOAT)
