"""The authors' tokenizer after docs/official_weights.md, in its own names and axes.

It was held against the authors' outputs (planes and pixels within 1e-6); where their fixture lies
beside the repository, tests do so again. x is the row and y the column here.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

Weights = dict[str, torch.Tensor]
Planes = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
PLANES = ("xy", "yt", "xt")


class Sizes(NamedTuple):
    dim: int
    heads: int
    layers: tuple[int, int, int]
    """Of the video ViT, the cross-self transformer and the decoder."""
    frames: int = 128
    side: int = 128


TINY = Sizes(dim=16, heads=2, layers=(1, 2, 2), frames=16, side=32)
S = Sizes(dim=512, heads=8, layers=(8, 8, 8))
L = Sizes(dim=1024, heads=16, layers=(8, 24, 24))


def shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    d, grid = sizes.dim, (sizes.frames // 8, sizes.side // 16, sizes.side // 16)
    tubelets = grid[0] * grid[1] * grid[2]
    found: dict[str, tuple[int, ...]] = {
        "encoder.cross_pos_emb": (1, tubelets, d),
        "encoder.encoder.cls_token": (1, 1, d),
        "encoder.encoder.pos_emb": (1, tubelets, d),
        **affine("encoder.encoder.patch_embed.proj", d, 3, 8, 16, 16),
        **affine("encoder.encoder.norm", d),
        **affine("encoder.transformer.norm", d),
        "decoder.transformer.pos_embed": (1, sizes.frames, sizes.side // 8, sizes.side // 8, d),
        **affine("decoder.transformer.patch_embed", d, 24),
        **affine("decoder.transformer.norm", d),
        **affine("decoder.projector", 192, d),
        "decoder.lpips_loss.anything": (3,),
    }
    for plane, size, patch in zip(PLANES, (16, 32, 32), (8, 16, 16)):
        found[f"weight_tokens_{plane}"] = (1, size, 16, 8)
        found |= affine(f"encoder.patch_embeds_{plane}.proj", d, 8, patch, 8)
        found |= affine(f"encoder.projectors_{plane}", patch * 8 * 8, d)
    stacks = ("encoder.encoder", "encoder.transformer", "decoder.transformer")
    for stack, layers in zip(stacks, sizes.layers):
        for layer in range(layers):
            prefix = f"{stack}.layers.{layer}."
            block = cross_block(d) if stack == "encoder.transformer" else vit_block(d)
            found |= {prefix + name: shape for name, shape in block.items()}
            if stack == "encoder.encoder":
                del found[prefix + "attn.qkv.bias"]
    return found


def affine(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def vit_block(d: int) -> dict[str, tuple[int, ...]]:
    return {
        **affine("norm1", d), **affine("attn.qkv", 3 * d, d), **affine("attn.proj", d, d),
        **affine("norm2", d), **affine("mlp.fc1", 4 * d, d), **affine("mlp.fc2", d, 4 * d),
    }  # fmt: skip


def cross_block(d: int) -> dict[str, tuple[int, ...]]:
    return {
        **affine("norm1", d), **affine("norm2", d), **affine("norm3", d),
        "cross_attn.in_proj_weight": (3 * d, d), "cross_attn.out_proj.weight": (d, d),
        "self_attn.in_proj_weight": (3 * d, d), "self_attn.out_proj.weight": (d, d),
        **affine("mlp.0", 4 * d, d), **affine("mlp.3", d, 4 * d),
    }  # fmt: skip


def random_weights(sizes: Sizes, seed: int = 0) -> Weights:
    """A file's `model` section, at scales a trained model has."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes(sizes).items():
        inputs = math.prod(shape[1:])
        tensor = torch.randn(shape, generator=generator) / inputs**0.5
        if len(shape) == 1:
            tensor = 0.1 * tensor + (".norm" in name and name.endswith("weight"))
        weights[f"module.{name}"] = tensor
    return weights


class Release:
    def __init__(self, weights: Weights, heads: int) -> None:
        self.weights = {name.removeprefix("module."): w for name, w in weights.items()}
        self.heads = heads

    def encode(self, video_BTHW3: torch.Tensor, num_frames: Sequence[int]) -> Planes:
        """xy (x, y), yt (t, y) and xt (t, x) of a uint8 video."""
        w = self.weights
        pixels = video_BTHW3.float() / 127.5 - 1
        for clip, count in enumerate(num_frames):
            pixels[clip, count:] = -3
        weight = w["encoder.encoder.patch_embed.proj.weight"]
        patches = F.conv3d(
            pixels.permute(0, 4, 1, 2, 3),
            weight,
            w["encoder.encoder.patch_embed.proj.bias"],
            stride=weight.shape[2:],
        )
        slabs, per_slab = patches.shape[2], patches[0, 0, 0].numel()
        tokens = patches.flatten(2).transpose(1, 2) + w["encoder.encoder.pos_emb"]
        cls = w["encoder.encoder.cls_token"].expand(len(tokens), -1, -1)
        tokens = self.vit("encoder.encoder", torch.cat([cls, tokens], dim=1))
        memory = tokens[:, 1:] + w["encoder.cross_pos_emb"]
        first_padded = torch.tensor(num_frames)[:, None] // weight.shape[2]
        bias = (torch.arange(slabs) >= first_padded).float().repeat_interleave(per_slab, 1)
        return self.planes(memory, bias)

    def planes(self, memory: torch.Tensor, bias_BL: torch.Tensor) -> Planes:
        w, starts, grids = self.weights, [], []
        for plane in PLANES:
            weight = w[f"encoder.patch_embeds_{plane}.proj.weight"]
            embedded = F.conv2d(
                w[f"weight_tokens_{plane}"].permute(0, 3, 1, 2),
                weight,
                w[f"encoder.patch_embeds_{plane}.proj.bias"],
                stride=weight.shape[2:],
            )
            starts.append(embedded.flatten(2).transpose(1, 2))
            grids.append((*embedded.shape[2:], *weight.shape[2:]))
        tokens = torch.cat(starts, dim=1).expand(len(memory), -1, -1)
        for prefix in self.layers("encoder.transformer"):
            normed = self.norm(f"{prefix}norm1", tokens, 1e-6)
            tokens = tokens + self.cross(f"{prefix}cross_attn", normed, memory, bias_BL)
            normed = self.norm(f"{prefix}norm2", tokens, 1e-6)
            tokens = tokens + self.cross(f"{prefix}self_attn", normed, normed)
            normed = self.norm(f"{prefix}norm3", tokens, 1e-6)
            hidden = F.gelu(self.linear(f"{prefix}mlp.0", normed))
            tokens = tokens + self.linear(f"{prefix}mlp.3", hidden)
        tokens = self.norm("encoder.transformer.norm", tokens, 1e-6)
        parts = tokens.split([start.shape[1] for start in starts], dim=1)
        planes = []
        for plane, part, (rows, columns, ph, pw) in zip(PLANES, parts, grids):
            flat = self.linear(f"encoder.projectors_{plane}", part)
            whole = flat.view(len(flat), rows, columns, ph, pw, -1).transpose(2, 3)
            planes.append(whole.reshape(len(flat), rows * ph, columns * pw, -1))
        return planes[0], planes[1], planes[2]

    def decode(self, planes: Planes, index_BN3: torch.Tensor) -> torch.Tensor:
        """Pixels (B, N, P) of the patches (t, x, y)."""
        table = self.weights["decoder.transformer.pos_embed"][0]
        sizes = torch.tensor(table.shape[:3])
        t, x, y = (index_BN3 / (sizes - 1) * 2 - 1).unbind(-1)
        read = []
        for plane, (row, column) in zip(planes, ((x, y), (t, y), (t, x))):
            at = torch.stack([column, row], dim=-1)[:, :, None]
            channels_first = plane.permute(0, 3, 1, 2)
            found = F.grid_sample(channels_first, at, align_corners=True, padding_mode="border")
            read.append(found[..., 0].transpose(1, 2))
        tokens = self.linear("decoder.transformer.patch_embed", torch.cat(read, dim=-1))
        tokens = tokens + table[index_BN3.unbind(-1)]
        return self.linear("decoder.projector", self.vit("decoder.transformer", tokens))

    def vit(self, stack: str, tokens: torch.Tensor) -> torch.Tensor:
        for prefix in self.layers(stack):
            normed = self.norm(f"{prefix}norm1", tokens, 1e-5)
            q, k, v = self.linear(f"{prefix}attn.qkv", normed).chunk(3, dim=-1)
            tokens = tokens + self.linear(f"{prefix}attn.proj", self.attend(q, k, v))
            hidden = self.linear(f"{prefix}mlp.fc1", self.norm(f"{prefix}norm2", tokens, 1e-5))
            tokens = tokens + self.linear(f"{prefix}mlp.fc2", F.gelu(hidden))
        return self.norm(f"{stack}.norm", tokens, 1e-5)

    def layers(self, stack: str) -> list[str]:
        prefix = f"{stack}.layers."
        found = {int(n[len(prefix) :].split(".")[0]) for n in self.weights if n.startswith(prefix)}
        return [f"{prefix}{layer}." for layer in sorted(found)]

    def cross(
        self,
        name: str,
        tokens: torch.Tensor,
        memory: torch.Tensor,
        bias_BL: torch.Tensor | None = None,
    ) -> torch.Tensor:
        of_q, of_k, of_v = self.weights[f"{name}.in_proj_weight"].chunk(3)
        found = self.attend(tokens @ of_q.T, memory @ of_k.T, memory @ of_v.T, bias_BL)
        return self.linear(f"{name}.out_proj", found)

    def attend(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        bias_BL: torch.Tensor | None = None,
    ) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        if bias_BL is not None:
            logits = logits + bias_BL[:, None, None]
        return (logits.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, weight.shape, weight, bias, eps)
