"""The authors' generator in our terms: sizes from its tensors' shapes, tensors by our names.

Their one class is our "no class"; the time table that their yt and xt share becomes one for each;
of their output channels the first half is the velocity, the rest was never used.
"""

import functools
import math
import re
from pathlib import Path

import torch

from coordtok.config.models import DiTModelConfig, triplane_keys
from coordtok.errors import CheckpointError
from coordtok.models.dit import TriplaneDiT
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

_TYPE_ROWS = ("xy", "yt", "xt")
"""What the rows of their `type_embed` are of, by their names."""

_MODULES = {
    "time.up": "t_embedder.mlp.0",
    "time.out": "t_embedder.mlp.2",
    "label": "y_embedder.embedding_table",
    "blocks.#.modulation": "blocks.#.adaLN_modulation.1",
    "blocks.#.attention.qkv": "blocks.#.attn.qkv",
    "blocks.#.attention.out": "blocks.#.attn.proj",
    "blocks.#.mlp.up": "blocks.#.mlp.fc1",
    "blocks.#.mlp.down": "blocks.#.mlp.fc2",
    "planes.#.embed": "x_embedder_#.proj",
    "velocities.#.modulation": "final_layer_#.adaLN_modulation.1",
    "velocities.#.head": "final_layer_#.linear",
}
"""Our modules and theirs with the same parameters; # is the number of a block or the plane."""


def translate_generator(
    theirs: Weights, path: Path, heads: int | None = None
) -> tuple[DiTModelConfig, dict[str, torch.Tensor]]:
    """Config and weights of a generator that equals theirs; views of their tensors where possible.

    heads: width / 64 by default. `path` is named in errors.

    Raises:
        CheckpointError: a tensor is missing, of another shape, or unknown.
        ConfigError: the sizes make no model.
    """
    config = read_sizes(theirs, path, heads)
    with torch.device("meta"):
        wanted = TriplaneDiT(config).state_dict()
    find = functools.partial(their_tensor, channels=config.latent.planes[0].channels)
    return config, translate(theirs, wanted, find, path)


def their_tensor(name: str, channels: int) -> tuple[str, Change]:
    """The release's name of our tensor `name`, and the function that brings it into our layout."""
    module, _, leaf = name.rpartition(".")
    number = re.search(r"\.(\d+)", module)
    general = re.sub(r"\.\d+", ".#", module, count=1)
    if number is None:
        return f"{_MODULES[general]}.{leaf}", unchanged
    if general.startswith("blocks."):
        return f"{_MODULES[general]}.{leaf}".replace("#", number[1]), unchanged
    plane = THEIR_PLANES[int(number[1])]
    if leaf == "position":  # a copy: two of ours come from pos_embed_t
        return f"pos_embed_{'xy' if plane == 'xy' else 't'}", lambda table: table[0].clone()
    if leaf == "which":
        return "type_embed", lambda rows: rows[0, _TYPE_ROWS.index(plane)]
    change: Change = unchanged
    if general == "velocities.#.head":
        change = functools.partial(_first_half, channels=channels)
    elif general == "planes.#.embed" and leaf == "weight":
        change = channels_last
    return f"{_MODULES[general]}.{leaf}".replace("#", plane), change


def _first_half(rows: torch.Tensor, channels: int) -> torch.Tensor:
    """Of output rows (patch row, patch column, 2 C), those of the first C channels."""
    return rows.unflatten(0, (-1, 2 * channels))[:, :channels].flatten(0, 1)


def read_sizes(theirs: Weights, path: Path, heads: int | None = None) -> DiTModelConfig:
    """Every size from the shapes of the tensors; `heads` is width / 64 where it is not given."""
    dim, channels, patch, _ = shape_of(theirs, "x_embedder_xy.proj.weight", 4, path)
    _, spatial, _ = shape_of(theirs, "pos_embed_xy", 3, path)
    _, temporal, _ = shape_of(theirs, "pos_embed_t", 3, path)
    hidden, _ = shape_of(theirs, "blocks.0.mlp.fc1.weight", 2, path)
    classes, _ = shape_of(theirs, "y_embedder.embedding_table.weight", 2, path)
    if classes != 1:
        raise CheckpointError(
            f"{path} has {classes} classes; the authors' generator has the one of no label"
        )
    side = math.isqrt(spatial)
    if side * side != spatial or temporal % side:
        raise CheckpointError(
            f"{path}: its position tables of {spatial} and {temporal} tokens are not of square "
            "frames; import the file as it was released"
        )
    return DiTModelConfig(
        **triplane_keys((temporal // side * patch, side * patch, side * patch), channels),
        patch=patch,
        dim=dim,
        heads=heads_of(dim, path) if heads is None else heads,
        layers=count_layers(theirs, "blocks"),
        mlp_ratio=hidden / dim,
    )
