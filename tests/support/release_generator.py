"""The authors' generator after docs/official_weights.md, in its own names and axes.

It was held against the authors' outputs (velocities within 1e-6); where their fixture lies beside
the repository, tests do so again. Planes are channels first here, x the row and y the column.
"""

import math
from typing import NamedTuple

import torch
from torch.nn import functional as F

from tests.support.release import PLANES, Planes, Weights, affine


class Sizes(NamedTuple):
    dim: int = 16
    layers: int = 2
    rows: int = 4
    """And columns of a frame's tokens."""
    times: int = 6
    channels: int = 3


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    d, channels = sizes.dim, sizes.channels
    found: dict[str, tuple[int, ...]] = {
        "pos_embed_xy": (1, sizes.rows**2, d),
        "pos_embed_t": (1, sizes.times * sizes.rows, d),
        "type_embed": (1, 3, d),
        **affine("t_embedder.mlp.0", d, 256),
        **affine("t_embedder.mlp.2", d, d),
        "y_embedder.embedding_table.weight": (1, d),
    }
    for plane in PLANES:
        found |= affine(f"x_embedder_{plane}.proj", d, channels, 2, 2)
        found |= affine(f"final_layer_{plane}.linear", 2 * 2 * 2 * channels, d)
        found |= affine(f"final_layer_{plane}.adaLN_modulation.1", 2 * d, d)
    for layer in range(sizes.layers):
        block = {
            **affine("attn.qkv", 3 * d, d),
            **affine("attn.proj", d, d),
            **affine("mlp.fc1", 4 * d, d),
            **affine("mlp.fc2", d, 4 * d),
            **affine("adaLN_modulation.1", 6 * d, d),
        }
        found |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
    return found


def random_weights(sizes: Sizes, seed: int = 0) -> Weights:
    """The `ema` section of a file; every tensor says something."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) / max(1, math.prod(shape[1:])) ** 0.5
        for name, shape in shapes(sizes).items()
    }


def velocity(weights: Weights, heads: int, latents: Planes, time_B: torch.Tensor) -> Planes:
    """xy (x, y), yt (t, y) and xt (t, x), each (B, C, rows, columns)."""
    w = weights
    told = F.silu(_embed_time(w, time_B) + w["y_embedder.embedding_table.weight"])
    parts = []
    for number, (plane, latent) in enumerate(zip(PLANES, latents)):
        embedded = F.conv2d(
            latent, w[f"x_embedder_{plane}.proj.weight"], w[f"x_embedder_{plane}.proj.bias"], 2
        )
        table = w["pos_embed_xy" if plane == "xy" else "pos_embed_t"]
        tokens = embedded.flatten(2).transpose(1, 2)
        parts.append(tokens + table + w["type_embed"][:, number])
    tokens = torch.cat(parts, dim=1)
    layers = {name.split(".")[1] for name in w if name.startswith("blocks.")}
    for layer in sorted(layers, key=int):
        tokens = _block(w, f"blocks.{layer}.", heads, tokens, told)
    pieces = tokens.split([part.shape[1] for part in parts], dim=1)
    xy, yt, xt = (
        _head(w, plane, piece, told, latent)
        for plane, piece, latent in zip(PLANES, pieces, latents)
    )
    return xy, yt, xt


def _embed_time(w: Weights, time_B: torch.Tensor) -> torch.Tensor:
    frequency = 10_000.0 ** (-torch.arange(128) / 128)
    angle = time_B[:, None] * frequency
    hidden = _linear(w, "t_embedder.mlp.0", torch.cat([angle.cos(), angle.sin()], dim=1))
    return _linear(w, "t_embedder.mlp.2", F.silu(hidden))


def _block(
    w: Weights, prefix: str, heads: int, tokens: torch.Tensor, told: torch.Tensor
) -> torch.Tensor:
    modulation = _linear(w, f"{prefix}adaLN_modulation.1", told)[:, None].chunk(6, dim=-1)
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation
    normed = _norm(tokens) * (1 + scale) + shift
    q, k, v = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2)
        for part in _linear(w, f"{prefix}attn.qkv", normed).chunk(3, dim=-1)
    )
    logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    attended = (logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
    tokens = tokens + gate * _linear(w, f"{prefix}attn.proj", attended)
    normed = _norm(tokens) * (1 + mlp_scale) + mlp_shift
    hidden = F.gelu(_linear(w, f"{prefix}mlp.fc1", normed), approximate="tanh")
    return tokens + mlp_gate * _linear(w, f"{prefix}mlp.fc2", hidden)


def _head(
    w: Weights, plane: str, tokens: torch.Tensor, told: torch.Tensor, latent: torch.Tensor
) -> torch.Tensor:
    shift, scale = _linear(w, f"final_layer_{plane}.adaLN_modulation.1", told)[:, None].chunk(2, -1)
    flat = _linear(w, f"final_layer_{plane}.linear", _norm(tokens) * (1 + scale) + shift)
    batch, channels, rows, columns = latent.shape
    patches = flat.view(batch, rows // 2, columns // 2, 2, 2, -1)
    whole = patches.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, rows, columns)
    return whole[:, :channels]


def _norm(tokens: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(tokens, tokens.shape[-1:], eps=1e-6)


def _linear(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])
