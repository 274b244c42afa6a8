"""How many parameters a model has, by part: a formula, without torch."""

from math import prod

from coordtok.config.models import DiTModelConfig, ModelConfig, TokenizerModelConfig
from coordtok.geometry.latent import Plane

TIME_FREQUENCIES = 256
"""Numbers that a generator's time is embedded from (models.conditioning)."""


def parameters(model: ModelConfig) -> dict[str, int]:
    """By part of the model; their sum is the model's."""
    return _generator(model) if isinstance(model, DiTModelConfig) else _tokenizer(model)


def matrices(model: ModelConfig) -> list[tuple[int, int]]:
    """Rows and columns of every weight matrix of a linear layer, those of fused layers apart: what
    `optim.name=muon` orthogonalises."""
    dim, latent = model.dim, model.latent
    hidden = int(dim * model.mlp_ratio)
    attention = [(dim, dim)] * 4
    block = [*attention, (hidden, dim), (dim, hidden)]
    to_planes = [(each.patch_numbers, dim) for each in latent.planes]
    of_planes = [(dim, each.patch_numbers) for each in latent.planes]
    if isinstance(model, DiTModelConfig):
        return [
            *of_planes,
            *to_planes,
            (dim, TIME_FREQUENCIES),
            (dim, dim),
            *[*block, (6 * dim, dim)] * model.layers,
            *[(2 * dim, dim)] * len(latent.planes),
        ]
    return [
        (dim, prod(model.video_patch) * 3),
        *block * (model.video_layers + model.plane_layers + model.decoder_layers),
        *attention * model.plane_layers,
        *(of_planes if model.plane_start == "learned" else []),
        *to_planes,
        (dim, latent.features),
        (prod(model.decoder_patch) * 3, dim),
    ]


def cell_numbers(model: TokenizerModelConfig, plane: Plane) -> int:
    """Numbers of all pixels behind a node of a plane (models.linear_path)."""
    return prod(model.video_size) * 3 // prod(plane.size)


def _linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + (outputs if bias else 0)


def _mlp(dim: int, ratio: float) -> int:
    hidden = int(dim * ratio)
    return _linear(dim, hidden) + _linear(hidden, dim)


def _vit_block(dim: int, ratio: float, qkv_bias: bool) -> int:
    norms = 2 * 2 * dim
    return norms + _linear(dim, 3 * dim, qkv_bias) + _linear(dim, dim) + _mlp(dim, ratio)


def _cross_block(dim: int, ratio: float) -> int:
    norms, attention = 3 * 2 * dim, 2 * _linear(dim, 4 * dim, bias=False)
    return norms + attention + _mlp(dim, ratio)


def _tokenizer(model: TokenizerModelConfig) -> dict[str, int]:
    dim, ratio, latent = model.dim, model.mlp_ratio, model.latent
    tubelets = prod(model.video_size) // prod(model.video_patch)
    patches = prod(model.video_size) // prod(model.decoder_patch)
    tokens = sum(
        each.tokens * dim
        if model.plane_start == "pooled"
        else each.numbers + _linear(each.patch_numbers, dim)
        for each in latent.planes
    )
    heads = sum(_linear(dim, each.patch_numbers) for each in latent.planes)
    return {
        "video embedding": _linear(prod(model.video_patch) * 3, dim) + (tubelets + 1) * dim,
        "video blocks": model.video_layers * _vit_block(dim, ratio, False) + 2 * dim,
        "plane tokens": tokens + tubelets * dim,
        "plane blocks": model.plane_layers * _cross_block(dim, ratio) + 2 * dim,
        "plane heads": heads,
        "point embedding": _linear(latent.features, dim) + patches * dim,
        "decoder blocks": model.decoder_layers * _vit_block(dim, ratio, True) + 2 * dim,
        "pixel head": _linear(dim, prod(model.decoder_patch) * 3),
        "linear path": _linear_path(model) if model.linear_path else 0,
    }


def _linear_path(model: TokenizerModelConfig) -> int:
    """Analysis, synthesis in the encoder of all planes but the last, and in the decoder."""
    planes = model.latent.planes
    per_plane = [each.channels * cell_numbers(model, each) for each in planes]
    return 3 * sum(per_plane) - per_plane[-1] + 2 * 3


def _generator(model: DiTModelConfig) -> dict[str, int]:
    dim, planes = model.dim, model.latent.planes
    attention = _linear(dim, 3 * dim) + _linear(dim, dim)
    block = _linear(dim, 6 * dim) + attention + _mlp(dim, model.mlp_ratio)
    return {
        "plane embedding": sum(
            _linear(each.patch_numbers, dim) + (1 + each.tokens) * dim for each in planes
        ),
        "time embedding": _linear(TIME_FREQUENCIES, dim) + _linear(dim, dim),
        "label embedding": (model.classes + 1) * dim,
        "blocks": model.layers * block,
        "velocities": sum(
            _linear(dim, 2 * dim) + _linear(dim, each.patch_numbers) for each in planes
        ),
    }
