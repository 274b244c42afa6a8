"""TriplaneDiT: a diffusion transformer on a tokenizer's planes (docs/method.md, "Generator").

The planes are cut into patches, whose tokens attend to each other across all of them; adaLN-Zero
blocks are conditioned on the time and the label. It predicts the velocity of flow matching
(diffusion.flow) on normalised latents (diffusion.statistics).

Linear layers keep torch's default initialisation but for those that adaLN-Zero wants at zero: the
fresh model predicts zero, and each of its blocks hands on what it is given.

Shapes: B batch, L tokens, D width, C plane channels, P = patch * patch * C; R, S rows and columns
of one plane.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from coordtok.config.models import NO_LABEL, DiTModelConfig
from coordtok.config.training import Recomputation
from coordtok.diffusion.statistics import LatentStatistics
from coordtok.errors import CheckpointError, ConfigError
from coordtok.geometry.latent import Plane
from coordtok.geometry.planes import Planes, from_patches, planes_of, to_patches
from coordtok.models.checks import check_planes
from coordtok.models.conditioning import LabelEmbedding, TimeEmbedding, sincos_table
from coordtok.models.layers import MLP, Block, BlockStack, SelfAttention, ZeroLinear
from coordtok.ops.attention import attention
from coordtok.pretrained.card import GeneratorSettings
from coordtok.pretrained.hub import local_export
from coordtok.pretrained.read import load_model

DIT_EPS = 1e-6


class AdaptiveNorm(nn.LayerNorm):
    """A LayerNorm whose scale and shift, (B, 1, D), are given."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=DIT_EPS, elementwise_affine=False)

    def forward(  # type: ignore[override]
        self, tokens_BLD: torch.Tensor, shift_B1D: torch.Tensor, scale_B1D: torch.Tensor
    ) -> torch.Tensor:
        return super().forward(tokens_BLD) * (1 + scale_B1D) + shift_B1D


Parts = tuple[torch.Tensor, ...]
"""What a `Modulation` gives."""


class Modulation(ZeroLinear):
    """Shifts, scales and gates out of the conditioning, (B, D): `count` of (B, 1, D)."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__(dim, count * dim)
        self.count = count

    def forward(self, conditioning_BD: torch.Tensor) -> Parts:  # type: ignore[override]
        parts = super().forward(conditioning_BD.to(self.weight.dtype)).unsqueeze(1)
        return parts.chunk(self.count, dim=-1)


class DiTBlock(Block):
    """adaLN-Zero: self-attention and MLP, each modulated and gated."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.modulation = Modulation(dim, 6)
        self.attention_norm = AdaptiveNorm(dim)
        self.attention = SelfAttention(dim, heads, qkv_bias=True, out_bias=True)
        self.mlp_norm = AdaptiveNorm(dim)
        self.mlp = MLP(dim, mlp_ratio, approximate="tanh")

    def forward(self, tokens_BLD: torch.Tensor, conditioning_BD: torch.Tensor) -> torch.Tensor:
        return self.modulated(tokens_BLD, self.modulation(conditioning_BD))

    def modulated(self, tokens_BLD: torch.Tensor, parts: Parts) -> torch.Tensor:
        """`forward` from what `modulation` gives."""
        q, k, v = self.between(self._before, tokens_BLD, *parts[:2])
        mixed_BLD = attention(q, k, v).flatten(2)
        tokens_BLD, added_BLD = self.between(self._after, tokens_BLD, mixed_BLD, *parts[2:5])
        return tokens_BLD + parts[5] * added_BLD  # here, or the gate would want the MLP again

    def _before(
        self, tokens_BLD: torch.Tensor, shift_B1D: torch.Tensor, scale_B1D: torch.Tensor
    ) -> Parts:
        return self.attention.split(self.attention_norm(tokens_BLD, shift_B1D, scale_B1D))

    def _after(
        self, tokens_BLD: torch.Tensor, mixed_BLD: torch.Tensor, *parts: torch.Tensor
    ) -> Parts:
        gate_B1D, shift_B1D, scale_B1D = parts
        tokens_BLD = tokens_BLD + gate_B1D * self.attention.out(mixed_BLD)
        return tokens_BLD, self.mlp(self.mlp_norm(tokens_BLD, shift_B1D, scale_B1D))


class PlaneEmbedding(nn.Module):
    """The patches of one plane as tokens, with which plane and where in it they are."""

    def __init__(self, geometry: Plane, dim: int) -> None:
        super().__init__()
        self.geometry = geometry
        self.embed = nn.Linear(geometry.patch_numbers, dim)
        self.which = nn.Parameter(torch.empty(dim))
        self.position = nn.Parameter(torch.empty(geometry.tokens, dim))
        nn.init.normal_(self.which)  # unit scale, as in the release: planes differ at once
        with torch.no_grad():
            self.position.copy_(sincos_table(*geometry.grid, dim))

    def forward(self, plane_BRSC: torch.Tensor) -> torch.Tensor:
        """(B, L, D), row-major."""
        patches_BLP = to_patches(plane_BRSC, self.geometry)
        return self.embed(patches_BLP.to(self.embed.weight.dtype)) + self.which + self.position


class PlaneVelocity(nn.Module):
    """Finished tokens to the velocity of one plane: each its patch, (row, column, channel)."""

    def __init__(self, geometry: Plane, dim: int) -> None:
        super().__init__()
        self.geometry = geometry
        self.modulation = Modulation(dim, 2)
        self.norm = AdaptiveNorm(dim)
        self.head = ZeroLinear(dim, geometry.patch_numbers)

    def forward(self, tokens_BLD: torch.Tensor, conditioning_BD: torch.Tensor) -> torch.Tensor:
        """(B, R, S, C), float32."""
        return self.modulated(tokens_BLD, self.modulation(conditioning_BD))

    def modulated(self, tokens_BLD: torch.Tensor, parts: Parts) -> torch.Tensor:
        """`forward` from what `modulation` gives."""
        shift, scale = parts
        return from_patches(self.head(self.norm(tokens_BLD, shift, scale)).float(), self.geometry)


class TriplaneDiT(nn.Module):
    """A diffusion transformer on planes, the paper's three or others, unconditional or of
    classes."""

    settings: GeneratorSettings
    """What an export says of the latents; only of a model from `from_pretrained`."""
    statistics: LatentStatistics
    """Between the tokenizer's latents and the model's normalised ones; likewise."""

    def __init__(self, config: DiTModelConfig) -> None:
        super().__init__()
        self.config, self.latent = config, config.latent
        dim = config.dim
        self.planes = nn.ModuleList(PlaneEmbedding(each, dim) for each in self.latent.planes)
        self.time = TimeEmbedding(dim)
        self.label = LabelEmbedding(config.classes, dim)
        self.blocks = BlockStack(
            DiTBlock(dim, config.heads, config.mlp_ratio) for _ in range(config.layers)
        )
        self.velocities = nn.ModuleList(PlaneVelocity(each, dim) for each in self.latent.planes)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
    ) -> "TriplaneDiT":
        """The generator of an export (scripts/export.py, scripts/import_official.py), in eval mode.

        folder: the export's, or the id of a model on the Hub (OWNER/NAME; extra `hf`), and
        revision: a branch, a tag or a commit there. device: the CPU by default. dtype: of the
        weights; None keeps the one they are stored in.
        """
        model, card = load_model(cls, "dit", local_export(folder, revision), device, dtype)
        model.settings = card.settings
        model.statistics = model._checked(card.settings.statistics, folder).to(model.device)
        return model

    def _checked(self, statistics: dict, folder: str | Path) -> LatentStatistics:
        """The statistics that the export at `folder` stores, if they can be this model's."""
        try:
            return LatentStatistics.from_dict(statistics, self.latent)
        except ConfigError as error:
            raise CheckpointError(f"{folder} is of no use: {error}; export it again") from None

    @property
    def device(self) -> torch.device:
        return self.label.weight.device

    def set_activation_checkpointing(self, kind: Recomputation) -> None:
        """Less memory for more operations in the backward pass, with the same gradients."""
        self.blocks.set_activation_checkpointing(kind)

    def forward(
        self, planes: Planes, time_B: torch.Tensor, label_B: torch.Tensor | None = None
    ) -> Planes:
        """The velocity at normalised latents `planes` and times in [0, 1]; float32.

        label_B: int64 class of each, -1 for none; None where none has one.
        """
        conditioning_BD = self.condition(time_B, label_B)
        tokens_BLD = self.blocks(self._tokens(planes), conditioning_BD)
        heads = zip(self.velocities, tokens_BLD.split(self.latent.tokens, dim=1))
        return planes_of(self.latent, (head(part, conditioning_BD) for head, part in heads))

    def condition(self, time_B: torch.Tensor, label_B: torch.Tensor | None) -> torch.Tensor:
        """The conditioning (B, D) of times and labels."""
        if label_B is None:
            label_B = torch.full_like(time_B, NO_LABEL, dtype=torch.int64)
        return F.silu(self.time(time_B) + self.label(label_B))

    def modulate(self, conditioning_BD: torch.Tensor) -> list[Parts]:
        """What the blocks and then the heads of the planes are modulated by."""
        return [each.modulation(conditioning_BD) for each in [*self.blocks, *self.velocities]]

    def modulated(self, planes: Planes, modulations: Sequence[Parts]) -> Planes:
        """`forward` from what `modulate` gives; for a model in one piece."""
        tokens_BLD = self._tokens(planes)
        for block, parts in zip(self.blocks, modulations):
            tokens_BLD = cast(DiTBlock, block).modulated(tokens_BLD, parts)
        heads = zip(
            self.velocities,
            tokens_BLD.split(self.latent.tokens, dim=1),
            modulations[len(self.blocks) :],
        )
        velocities = (cast(PlaneVelocity, head).modulated(part, by) for head, part, by in heads)
        return planes_of(self.latent, velocities)

    def _tokens(self, planes: Planes) -> torch.Tensor:
        check_planes(planes, self.latent)
        return torch.cat([embed(plane) for embed, plane in zip(self.planes, planes)], dim=1)
