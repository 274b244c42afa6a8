"""The authors' tokenizer in our terms: sizes from its tensors' shapes, tensors by our names."""

import math
import re
from pathlib import Path

import torch

from coordtok.config.models import TokenizerModelConfig, triplane_keys
from coordtok.errors import CheckpointError
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.official.layout import (
    THEIR_PLANES,
    Change,
    Weights,
    channels_last,
    count_layers,
    heads_of,
    shape_of,
    translate,
    unchanged,
)

_IGNORED = "decoder.lpips_loss."

_VIT = {
    "attention_norm": "norm1",
    "attention.qkv": "attn.qkv",
    "attention.out": "attn.proj",
    "mlp_norm": "norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}
_CROSS_SELF = {
    "cross_norm": "norm1",
    "cross_attention.out": "cross_attn.out_proj",
    "self_norm": "norm2",
    "self_attention.out": "self_attn.out_proj",
    "mlp_norm": "norm3",
    "mlp.up": "mlp.0",
    "mlp.down": "mlp.3",
}
_MODULES = {
    "encoder.video.patch_embed": "encoder.encoder.patch_embed.proj",
    "encoder.video.norm": "encoder.encoder.norm",
    "encoder.planes.tokens.#.embed": "encoder.patch_embeds_#.proj",
    "encoder.planes.heads.#.project": "encoder.projectors_#",
    "encoder.planes.norm": "encoder.transformer.norm",
    "decoder.embed": "decoder.transformer.patch_embed",
    "decoder.norm": "decoder.transformer.norm",
    "decoder.head": "decoder.projector",
    **{f"encoder.video.blocks.#.{a}": f"encoder.encoder.layers.#.{b}" for a, b in _VIT.items()},
    **{f"decoder.blocks.#.{a}": f"decoder.transformer.layers.#.{b}" for a, b in _VIT.items()},
    **{
        f"encoder.planes.blocks.#.{a}": f"encoder.transformer.layers.#.{b}"
        for a, b in _CROSS_SELF.items()
    },
}
"""Our modules and theirs with the same parameters; # is the number of a block or the plane."""


def _swap_planes(weight: torch.Tensor) -> torch.Tensor:
    """The decoder's input columns: theirs are of xy, yt, xt, which we call xy, xt, yt."""
    xy, xt, yt = weight.chunk(3, dim=1)
    return torch.cat([xy, yt, xt], dim=1)


_TENSORS: dict[str, tuple[str, Change]] = {
    "encoder.video.patch_embed.weight": ("encoder.encoder.patch_embed.proj.weight", channels_last),
    "encoder.video.position": ("encoder.encoder.pos_emb", lambda table: table[0]),
    "encoder.video.class_token": ("encoder.encoder.cls_token", lambda token: token[0, 0]),
    "encoder.planes.memory_position": ("encoder.cross_pos_emb", lambda table: table[0]),
    "encoder.planes.tokens.#.plane": ("weight_tokens_#", lambda plane: plane[0]),
    "encoder.planes.tokens.#.embed.weight": ("encoder.patch_embeds_#.proj.weight", channels_last),
    "encoder.planes.blocks.#.cross_attention.q.weight": (
        "encoder.transformer.layers.#.cross_attn.in_proj_weight",
        lambda qkv: qkv[: len(qkv) // 3],
    ),
    "encoder.planes.blocks.#.cross_attention.kv.weight": (
        "encoder.transformer.layers.#.cross_attn.in_proj_weight",
        lambda qkv: qkv[len(qkv) // 3 :],
    ),
    "encoder.planes.blocks.#.self_attention.qkv.weight": (
        "encoder.transformer.layers.#.self_attn.in_proj_weight",
        unchanged,
    ),
    "decoder.embed.weight": ("decoder.transformer.patch_embed.weight", _swap_planes),
    "decoder.position": ("decoder.transformer.pos_embed", lambda table: table[0].flatten(0, 2)),
}
"""Single tensors laid out or called otherwise: our name -> theirs, and how to change theirs."""


def translate_tokenizer(
    theirs: Weights, path: Path, heads: int | None = None, legacy_padding: bool = False
) -> tuple[TokenizerModelConfig, dict[str, torch.Tensor]]:
    """Config and weights of a tokenizer that equals theirs; views of their tensors where possible.

    heads: width / 64 by default. legacy_padding: see `models.legacy`. `path` is named in errors.

    Raises:
        CheckpointError: a tensor is missing, of another shape, or unknown.
        ConfigError: the sizes make no model.
    """
    config = read_sizes(theirs, path, heads, legacy_padding)
    with torch.device("meta"):
        wanted = CoordTok(config).state_dict()
    return config, translate(theirs, wanted, their_tensor, path, _IGNORED)


def their_tensor(name: str) -> tuple[str, Change]:
    """The release's name of our tensor `name`, and the function that brings it into our layout."""
    number = re.search(r"\.(\d+)\.", name)
    general = re.sub(r"\.\d+\.", ".#.", name, count=1)
    if general in _TENSORS:
        pattern, change = _TENSORS[general]
    else:
        module, _, leaf = general.rpartition(".")
        pattern, change = f"{_MODULES[module]}.{leaf}", unchanged
    if number is None:
        return pattern, change
    is_plane = ".planes.tokens." in name or ".planes.heads." in name
    label = THEIR_PLANES[int(number[1])] if is_plane else number[1]
    return pattern.replace("#", label), change


def read_sizes(
    theirs: Weights, path: Path, heads: int | None = None, legacy_padding: bool = False
) -> TokenizerModelConfig:
    """Every size from the shapes of the tensors; `heads` is width / 64 where it is not given."""

    def shape(name: str, axes: int) -> tuple[int, ...]:
        return shape_of(theirs, name, axes, path)

    dim, _, *video_patch = shape("encoder.encoder.patch_embed.proj.weight", 5)
    _, rows, columns, channels = shape("weight_tokens_xy", 4)
    _, times, _, _ = shape("weight_tokens_yt", 4)
    *_, patch_rows, patch_columns = shape("encoder.patch_embeds_xy.proj.weight", 4)
    *_, patch_times, _ = shape("encoder.patch_embeds_yt.proj.weight", 4)
    numbers, _ = shape("decoder.projector.weight", 2)
    _, *grid, _ = shape("decoder.transformer.pos_embed", 5)
    hidden, _ = shape("encoder.encoder.layers.0.mlp.fc1.weight", 2)
    decoder_patch = _decoder_patch(numbers, path)
    frames, height, width = (count * size for count, size in zip(grid, decoder_patch))
    return TokenizerModelConfig(
        frames=frames,
        height=height,
        width=width,
        video_patch=(video_patch[0], video_patch[1], video_patch[2]),
        **triplane_keys((times, rows, columns), channels),
        plane_patch=(patch_times, patch_rows, patch_columns),
        decoder_patch=decoder_patch,
        dim=dim,
        heads=heads_of(dim, path) if heads is None else heads,
        mlp_ratio=hidden / dim,
        video_layers=count_layers(theirs, "encoder.encoder.layers"),
        plane_layers=count_layers(theirs, "encoder.transformer.layers"),
        decoder_layers=count_layers(theirs, "decoder.transformer.layers"),
        legacy_padding=legacy_padding,
    )


def _decoder_patch(numbers: int, path: Path) -> tuple[int, int, int]:
    """The patch of one frame and equal sides that has so many numbers, as all released ones are."""
    side = math.isqrt(numbers // 3)
    if numbers != 3 * side * side:
        raise CheckpointError(
            f"{path}: decoder.projector makes {numbers} numbers, which are not the pixels of a "
            "square patch of one frame"
        )
    return (1, side, side)
