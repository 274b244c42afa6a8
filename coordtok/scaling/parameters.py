"""The parameters of a model by name and shape, and how many each part has: a formula, without
torch."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import prod

from coordtok.config.models import DiTModelConfig, ModelConfig, TokenizerModelConfig
from coordtok.geometry.latent import Plane

TIME_FREQUENCIES = 256
"""Numbers that a generator's time is embedded from (models.conditioning)."""
FUSED = {"qkv": 3, "kv": 2}
"""Matrices that lie in one weight, by the name of its layer."""

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]

TOKENIZER_PARTS = {
    "video embedding": ("encoder.video.position", "encoder.video.class_", "encoder.video.patch_"),
    "video blocks": ("encoder.video.blocks", "encoder.video.norm"),
    "plane tokens": ("encoder.planes.tokens", "encoder.planes.memory_"),
    "plane blocks": ("encoder.planes.blocks", "encoder.planes.norm"),
    "plane heads": ("encoder.planes.heads",),
    "point embedding": ("decoder.embed", "decoder.position"),
    "decoder blocks": ("decoder.blocks", "decoder.norm"),
    "pixel head": ("decoder.head",),
    "linear path": ("encoder.linear", "decoder.linear"),
}
GENERATOR_PARTS = {
    "plane embedding": ("planes.",),
    "time embedding": ("time.",),
    "label embedding": ("label.",),
    "blocks": ("blocks.",),
    "velocities": ("velocities.",),
}
"""What the names of a part's parameters begin with."""


def parameters(model: ModelConfig) -> dict[str, int]:
    """By part of the model; their sum is the model's."""
    return dict(_parameters(model))


@lru_cache
def _parameters(model: ModelConfig) -> dict[str, int]:
    parts = GENERATOR_PARTS if isinstance(model, DiTModelConfig) else TOKENIZER_PARTS
    sizes = {name: prod(shape) for name, shape in shapes(model).items()}
    return {
        part: sum(size for name, size in sizes.items() if name.startswith(beginnings))
        for part, beginnings in parts.items()
    }


def matrices(model: ModelConfig) -> list[tuple[int, int]]:
    """Rows and columns of every weight matrix of a linear layer, those of fused layers apart: what
    `optim.name=muon` orthogonalises."""
    return list(_matrices(model))


@lru_cache
def _matrices(model: ModelConfig) -> list[tuple[int, int]]:
    found = []
    for name, shape in shapes(model).items():
        if is_matrix(name, shape):
            count = FUSED.get(name.split(".")[-2], 1)
            found += [(shape[0] // count, shape[1])] * count
    return found


def is_matrix(name: str, shape: Shape) -> bool:
    """Whether a parameter is the weight of a linear layer."""
    return len(shape) == 2 and name.endswith(".weight") and name != "label.weight"


def shapes(model: ModelConfig) -> Mapping[str, Shape]:
    """Of all parameters by their names in the built model, in its order."""
    return dict(_generator(model) if isinstance(model, DiTModelConfig) else _tokenizer(model))


def sizes(model: ModelConfig) -> list[int]:
    """Numbers of each parameter, in that order."""
    return [prod(shape) for shape in shapes(model).values()]


def without_gradient(model: ModelConfig) -> int:
    """Numbers of parameters that no loss reaches: positions of features that no plane block
    reads."""
    if isinstance(model, DiTModelConfig) or model.plane_layers:
        return 0
    return prod(shapes(model)["encoder.planes.memory_position"])


def cell_numbers(model: TokenizerModelConfig, group: Sequence[Plane]) -> int:
    """Numbers of all pixels behind a node of a group's planes (models.linear_path)."""
    return prod(model.video_size) * 3 // (len(group) * prod(group[0].size))


def linear_nodes(model: TokenizerModelConfig) -> int:
    """Nodes of a plane from which the linear path decodes a patch."""
    return (2 * model.linear_reach + 1) ** 2


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Named:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, dim: int) -> Named:
    yield f"{name}.weight", (dim,)
    yield f"{name}.bias", (dim,)


def _mlp(name: str, dim: int, ratio: float) -> Named:
    yield from _linear(f"{name}.up", dim, int(dim * ratio))
    yield from _linear(f"{name}.down", int(dim * ratio), dim)


def _attention(name: str, dim: int, qkv_bias: bool, out_bias: bool) -> Named:
    yield from _linear(f"{name}.qkv", dim, 3 * dim, qkv_bias)
    yield from _linear(f"{name}.out", dim, dim, out_bias)


def _vit_block(name: str, dim: int, ratio: float, qkv_bias: bool) -> Named:
    yield from _norm(f"{name}.attention_norm", dim)
    yield from _attention(f"{name}.attention", dim, qkv_bias, True)
    yield from _norm(f"{name}.mlp_norm", dim)
    yield from _mlp(f"{name}.mlp", dim, ratio)


def _cross_block(name: str, dim: int, ratio: float) -> Named:
    yield from _norm(f"{name}.cross_norm", dim)
    yield from _linear(f"{name}.cross_attention.q", dim, dim, False)
    yield from _linear(f"{name}.cross_attention.kv", dim, 2 * dim, False)
    yield from _linear(f"{name}.cross_attention.out", dim, dim, False)
    yield from _norm(f"{name}.self_norm", dim)
    yield from _attention(f"{name}.self_attention", dim, False, False)
    yield from _norm(f"{name}.mlp_norm", dim)
    yield from _mlp(f"{name}.mlp", dim, ratio)


def _tokenizer(model: TokenizerModelConfig) -> Named:
    yield from _video("encoder.video", model)
    yield from _planes("encoder.planes", model)
    if model.linear_path:
        yield from _linear_encoder("encoder.linear", model)
    dim = model.dim
    yield "decoder.position", (_parts(model.video_size, model.decoder_patch), dim)
    yield from _linear("decoder.embed", model.latent.features, dim)
    for number in range(model.decoder_layers):
        yield from _vit_block(f"decoder.blocks.{number}", dim, model.mlp_ratio, True)
    yield from _norm("decoder.norm", dim)
    yield from _linear("decoder.head", dim, prod(model.decoder_patch) * 3)
    if model.linear_path:
        yield from _linear_decoder("decoder.linear", model)


def _video(name: str, model: TokenizerModelConfig) -> Named:
    dim = model.dim
    yield f"{name}.position", (_parts(model.video_size, model.video_patch), dim)
    yield f"{name}.class_token", (dim,)
    yield from _linear(f"{name}.patch_embed", prod(model.video_patch) * 3, dim)
    for number in range(model.video_layers):
        yield from _vit_block(f"{name}.blocks.{number}", dim, model.mlp_ratio, False)
    yield from _norm(f"{name}.norm", dim)


def _planes(name: str, model: TokenizerModelConfig) -> Named:
    dim, planes = model.dim, model.latent.planes
    yield f"{name}.memory_position", (_parts(model.video_size, model.video_patch), dim)
    for number, plane in enumerate(planes):
        if model.plane_start == "pooled":
            yield f"{name}.tokens.{number}.position", (plane.tokens, dim)
        else:
            yield f"{name}.tokens.{number}.plane", plane.shape
            yield from _linear(f"{name}.tokens.{number}.embed", plane.patch_numbers, dim)
    for number in range(model.plane_layers):
        yield from _cross_block(f"{name}.blocks.{number}", dim, model.mlp_ratio)
    yield from _norm(f"{name}.norm", dim)
    for number, plane in enumerate(planes):
        yield from _linear(f"{name}.heads.{number}.project", dim, plane.patch_numbers)


def _linear_encoder(name: str, model: TokenizerModelConfig) -> Named:
    """Analysis, and synthesis of all groups of planes but the last."""
    yield f"{name}.mean", (3,)
    groups = model.latent.plane_groups
    for number, group in enumerate(groups):
        shape = group[0].channels, cell_numbers(model, group)
        for half in ("analysis", "synthesis")[: 1 if group is groups[-1] else 2]:
            yield f"{name}.cells.{number}.{half}", shape


def _linear_decoder(name: str, model: TokenizerModelConfig) -> Named:
    yield f"{name}.mean", (3,)
    patch = prod(model.decoder_patch) * 3
    for number, group in enumerate(model.latent.plane_groups):
        places = cell_numbers(model, group) // patch
        inputs = linear_nodes(model) * group[0].channels
        yield f"{name}.cells.{number}.synthesis", (places, inputs, patch)


def _generator(model: DiTModelConfig) -> Named:
    dim, planes = model.dim, model.latent.planes
    for number, plane in enumerate(planes):
        yield f"planes.{number}.which", (dim,)
        yield f"planes.{number}.position", (plane.tokens, dim)
        yield from _linear(f"planes.{number}.embed", plane.patch_numbers, dim)
    yield from _linear("time.up", TIME_FREQUENCIES, dim)
    yield from _linear("time.out", dim, dim)
    yield "label.weight", (model.classes + 1, dim)
    for number in range(model.layers):
        name = f"blocks.{number}"
        yield from _linear(f"{name}.modulation", dim, 6 * dim)
        yield from _attention(f"{name}.attention", dim, True, True)
        yield from _mlp(f"{name}.mlp", dim, model.mlp_ratio)
    for number, plane in enumerate(planes):
        yield from _linear(f"velocities.{number}.modulation", dim, 2 * dim)
        yield from _linear(f"velocities.{number}.head", dim, plane.patch_numbers)


def _parts(whole: tuple[int, ...], part: tuple[int, ...]) -> int:
    return prod(whole) // prod(part)
