"""What a training step costs in floating-point operations: a formula, without torch.

Counted are matrix products and attention, as torch's FlopCounterMode counts them: a multiplication
and an addition are two operations. A backward pass makes two products for each of the forward
pass, one where the input needs no gradient; attention makes five for two, since its weights are
computed again. Normalisation, activations and the like are left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from coordtok.config.models import DiTModelConfig, TokenizerModelConfig
from coordtok.config.schema import RunConfig
from coordtok.geometry.latent import LatentShape
from coordtok.scaling.parameters import TIME_FREQUENCIES, matrices, parameters

ADAMW_PER_PARAMETER = 14
"""Operations on each parameter: two moments, their correction, decay and the update."""
NEWTON_SCHULZ_STEPS = 5


@dataclass(frozen=True)
class Flops:
    """Of one part of a model and one clip."""

    forward: float = 0.0
    backward: float = 0.0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: float) -> "Flops":
        return Flops(self.forward * times, self.backward * times)

    @property
    def total(self) -> float:
        return self.forward + self.backward


@dataclass(frozen=True)
class StepFlops:
    """Of one update, all clips of the global batch together."""

    forward: float
    backward: float
    recomputed: float
    """Forward passes that activation checkpointing makes again."""
    optimizer: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recomputed + self.optimizer


def training_step_flops(run: RunConfig) -> StepFlops:
    """Operations of one update of `run`."""
    parts = clip_flops(run)
    clips = run.train.global_batch
    whole = sum(parts.values(), Flops()) * clips
    recomputed = 0.0
    if run.train.activation_checkpointing:
        recomputed = clips * sum(flops.forward for name, flops in parts.items() if "block" in name)
    optimizer = float(ADAMW_PER_PARAMETER) * sum(parameters(run.model).values())
    if run.optim.name == "muon":
        optimizer += sum(newton_schulz(*shape) for shape in matrices(run.model))
    return StepFlops(whole.forward, whole.backward, recomputed, optimizer)


def clip_flops(run: RunConfig) -> Mapping[str, Flops]:
    """Operations for one clip, by part of the model."""
    if isinstance(run.model, DiTModelConfig):
        return dict(_generator(run.model))
    return dict(_tokenizer(run.model, run.train.points))


def linear(rows: int, inputs: int, outputs: int, input_gradient: bool = True) -> Flops:
    """Of `rows` vectors through a matrix."""
    forward = 2.0 * rows * inputs * outputs
    return Flops(forward, forward * (2 if input_gradient else 1))


def attention(queries: int, keys: int, dim: int) -> Flops:
    """Of all heads together, projections left out."""
    forward = 4.0 * queries * keys * dim
    return Flops(forward, 2.5 * forward)


def newton_schulz(rows: int, columns: int) -> float:
    """Of orthogonalising one matrix (train.muon): per step two products of the long side, and one
    of the short side alone."""
    short, long = sorted((rows, columns))
    return NEWTON_SCHULZ_STEPS * (4.0 * short * short * long + 2.0 * short**3)


def _self_attention(tokens: int, dim: int) -> Flops:
    return linear(tokens, dim, 4 * dim) + attention(tokens, tokens, dim)


def _mlp(tokens: int, dim: int, ratio: float) -> Flops:
    return linear(tokens, dim, int(dim * ratio)) * 2


def _vit_block(tokens: int, dim: int, ratio: float) -> Flops:
    return _self_attention(tokens, dim) + _mlp(tokens, dim, ratio)


def _cross_block(tokens: int, memory: int, dim: int, ratio: float) -> Flops:
    cross = linear(tokens, dim, 2 * dim) + linear(memory, dim, 2 * dim)
    return cross + attention(tokens, memory, dim) + _vit_block(tokens, dim, ratio)


def _tokenizer(model: TokenizerModelConfig, points: int) -> Iterator[tuple[str, Flops]]:
    dim, ratio, latent = model.dim, model.mlp_ratio, model.latent
    tubelets = prod(model.video_size) // prod(model.video_patch)
    tokens = sum(latent.tokens)
    block = _cross_block(tokens, tubelets, dim, ratio)
    yield (
        "video embedding",
        linear(tubelets, prod(model.video_patch) * 3, dim, input_gradient=False),
    )
    yield "video blocks", _vit_block(tubelets + 1, dim, ratio) * model.video_layers
    yield "plane blocks", block * model.plane_layers
    yield "plane heads", linear(1, dim, latent.numbers)
    yield "reading planes", _read(latent, points)
    yield "point embedding", linear(points, latent.features, dim)
    yield "decoder blocks", _vit_block(points, dim, ratio) * model.decoder_layers
    yield "pixel head", linear(points, dim, prod(model.decoder_patch) * 3)
    if model.linear_path:
        yield "linear path", _linear_path(model, points)


def _linear_path(model: TokenizerModelConfig, points: int) -> Flops:
    """All pixels to coefficients, and back but for the last plane; three nodes to each patch."""
    pixels, patch = prod(model.video_size) * 3, prod(model.decoder_patch) * 3
    planes = model.latent.planes
    passes = [linear(pixels, each.channels, 2 - (each is planes[-1])) for each in planes]
    return sum(passes, linear(points, model.latent.features, patch))


def _read(latent: LatentShape, points: int) -> Flops:
    """Interpolation along the rows of each plane, which is a matrix product."""
    parts = (
        linear(points, plane.size[0], plane.size[1] * plane.channels, input_gradient=False)
        for plane in latent.planes
    )
    return sum(parts, Flops())


def _generator(model: DiTModelConfig) -> Iterator[tuple[str, Flops]]:
    dim, latent = model.dim, model.latent
    tokens = sum(latent.tokens)
    block = _vit_block(tokens, dim, model.mlp_ratio) + linear(1, dim, 6 * dim)
    yield "plane embedding", linear(1, latent.numbers, dim, input_gradient=False)
    yield "time embedding", linear(1, TIME_FREQUENCIES, dim, input_gradient=False)
    yield "time embedding, second layer", linear(1, dim, dim)
    yield "blocks", block * model.layers
    yield (
        "velocities",
        linear(1, dim, latent.numbers) + linear(1, dim, 2 * dim) * len(latent.planes),
    )
