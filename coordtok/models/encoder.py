"""From a video to its planes.

    Encoder               which tubelets are padding; the linear path beside the rest
      VideoViT            tubelets to features: their embedding, positions and blocks
      PlaneTransformer    features to planes: positions of the features, blocks, and of each plane
        PlaneTokens       what its tokens are at first: learned,
        PooledTokens      or features of the video
        PlaneHead         what its finished tokens become

Shapes: B batch, T frames, H rows, W columns, L tubelets or tokens of planes, M tubelets that are
read, D width, C plane channels, R, S rows and columns of one plane.
"""

import torch
from torch import nn

from coordtok.config.models import TokenizerModelConfig
from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.latent import AXES, Plane
from coordtok.geometry.patches import patchify
from coordtok.geometry.pixels import from_uint8
from coordtok.geometry.planes import Planes, from_patches, planes_of, to_patches
from coordtok.models.layers import (
    CROSS_SELF_EPS,
    VIT_EPS,
    BlockStack,
    CrossSelfBlock,
    ViTBlock,
    output_linear,
)
from coordtok.models.legacy import legacy_memory_bias
from coordtok.models.linear_path import LinearEncoder

TABLE_STD = 0.02
"""Position tables added to patch embeddings start small, as in ViT. timm cuts their normal values
off at 2, a hundred times this; the function for it goes wrong in bfloat16 on older torch."""


class VideoViT(nn.Module):
    """A ViT over the tubelets of a video; its class token is dropped at the end."""

    def __init__(self, config: TokenizerModelConfig) -> None:
        super().__init__()
        self.patch = config.video_patch
        tubelets = PatchGrid(config.video_size, config.video_patch).count
        pt, ph, pw = config.video_patch
        self.patch_embed = nn.Linear(pt * ph * pw * 3, config.dim)
        self.position = nn.Parameter(torch.empty(tubelets, config.dim))
        self.class_token = nn.Parameter(torch.empty(config.dim))
        nn.init.normal_(self.position, std=TABLE_STD)
        nn.init.normal_(self.class_token, std=TABLE_STD)
        self.blocks = BlockStack(
            ViTBlock(
                config.dim,
                config.heads,
                config.mlp_ratio,
                qkv_bias=False,
                zero_init=config.zero_init,
            )
            for _ in range(config.video_layers)
        )
        self.norm = nn.LayerNorm(config.dim, eps=VIT_EPS)

    def forward(
        self, video_BTHW3: torch.Tensor, key_mask_BL: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, L, D) features of the tubelets in (t, y, x) order."""
        patches_BLP = patchify(video_BTHW3, self.patch)
        if patches_BLP.dtype == torch.uint8:
            patches_BLP = from_uint8(patches_BLP)
        dtype = self.patch_embed.weight.dtype
        tokens_BLD = self.patch_embed(patches_BLP.to(dtype)) + self.position
        class_B1D = self.class_token.to(tokens_BLD.dtype).expand(len(tokens_BLD), 1, -1)
        tokens_BLD = torch.cat([class_B1D, tokens_BLD], dim=1)
        if key_mask_BL is not None:
            key_mask_BL = nn.functional.pad(key_mask_BL, (1, 0), value=True)
        return self.norm(self.blocks(tokens_BLD, key_mask_BL)[:, 1:])


class PlaneTokens(nn.Module):
    """Learned tokens that stand for one plane: patches of a learned plane, embedded."""

    def __init__(self, geometry: Plane, dim: int) -> None:
        super().__init__()
        self.geometry = geometry
        # Unit scale, as in the release: the few tokens must differ from the first step on.
        self.plane = nn.Parameter(torch.empty(geometry.shape))
        nn.init.normal_(self.plane)
        self.embed = nn.Linear(geometry.patch_numbers, dim)

    def forward(self, features_BMD: torch.Tensor) -> torch.Tensor:
        """(B, L, D), row-major: the same of every video."""
        tokens_LD = self.embed(to_patches(self.plane.unsqueeze(0), self.geometry).squeeze(0))
        return tokens_LD.expand(len(features_BMD), -1, -1)


class PooledTokens(nn.Module):
    """Tokens that lie on the grid of tubelets, and start as the mean of the video's features over
    the axis that the plane lacks, in the plane's part of the time."""

    def __init__(self, geometry: Plane, grid: PatchGrid, dim: int) -> None:
        super().__init__()
        self.grid = grid
        steps = geometry.steps(grid.shape[0])
        self.steps = slice(steps.start, steps.stop)
        self.missing = next(n for n, axis in enumerate(AXES, 1) if axis not in geometry.axes)
        self.position = nn.Parameter(torch.empty(geometry.tokens, dim))
        nn.init.normal_(self.position, std=TABLE_STD)

    def forward(self, features_BMD: torch.Tensor) -> torch.Tensor:
        """(B, L, D), row-major."""
        features = features_BMD.unflatten(1, self.grid.shape)[:, self.steps]
        return features.mean(self.missing).flatten(1, 2) + self.position


class PlaneHead(nn.Module):
    """Makes a plane of its finished tokens: each becomes its patch, (row, column, channel)."""

    def __init__(self, geometry: Plane, dim: int, zero_init: bool) -> None:
        super().__init__()
        self.geometry = geometry
        self.project = output_linear(dim, geometry.patch_numbers, zero_init)

    def forward(self, tokens_BLD: torch.Tensor) -> torch.Tensor:
        """(B, R, S, C), float32."""
        return from_patches(self.project(tokens_BLD).float(), self.geometry)


class PlaneTransformer(nn.Module):
    """The tokens of all planes read the video's features and become the planes."""

    def __init__(self, config: TokenizerModelConfig) -> None:
        super().__init__()
        self.latent = config.latent
        grid = PatchGrid(config.video_size, config.video_patch)
        # Unit scale, as in the release: it joins features that a LayerNorm gave unit scale.
        self.memory_position = nn.Parameter(torch.empty(grid.count, config.dim))
        nn.init.normal_(self.memory_position)
        self.tokens = nn.ModuleList(
            PooledTokens(each, grid, config.dim)
            if config.plane_start == "pooled"
            else PlaneTokens(each, config.dim)
            for each in self.latent.planes
        )
        self.blocks = BlockStack(
            CrossSelfBlock(
                config.dim,
                config.heads,
                config.mlp_ratio,
                config.zero_init,
                config.projects_memory,
            )
            for _ in range(config.plane_layers)
        )
        self.norm = nn.LayerNorm(config.dim, eps=CROSS_SELF_EPS)
        self.heads = nn.ModuleList(
            PlaneHead(each, config.dim, config.linear_path) for each in self.latent.planes
        )

    def forward(
        self, features_BMD: torch.Tensor, key_mask_BM: torch.Tensor | None = None
    ) -> Planes:
        tokens_BLD = torch.cat([tokens(features_BMD) for tokens in self.tokens], dim=1)
        memory_BMD = features_BMD + self.memory_position
        tokens_BLD = self.norm(self.blocks(tokens_BLD, memory_BMD, key_mask_BM))
        parts = tokens_BLD.split(self.latent.tokens, dim=1)
        return planes_of(self.latent, (head(part) for head, part in zip(self.heads, parts)))


class Encoder(nn.Module):
    """Video to planes: the ViT's features, read by the plane tokens, and what the linear path adds
    to them if there is one."""

    def __init__(self, config: TokenizerModelConfig) -> None:
        super().__init__()
        self.grid = PatchGrid(config.video_size, config.video_patch)
        self.legacy_padding = config.legacy_padding
        self.video = VideoViT(config)
        self.planes = PlaneTransformer(config)
        self.linear = LinearEncoder(config) if config.linear_path else None

    def forward(self, video_BTHW3: torch.Tensor, is_real_BT: torch.Tensor | None = None) -> Planes:
        """`video` is uint8, or float in [-1, 1], with padding already overwritten; `is_real_BT`
        marks the frames that are not padding. A tubelet with any real frame is attended to."""
        planes = self._transformed(video_BTHW3, is_real_BT)
        if self.linear is None:
            return planes
        linear = self.linear(video_BTHW3, is_real_BT)
        return planes._make(plane + added for plane, added in zip(planes, linear))

    def _transformed(self, video_BTHW3: torch.Tensor, is_real_BT: torch.Tensor | None) -> Planes:
        if is_real_BT is None:
            return self.planes(self.video(video_BTHW3))
        if self.legacy_padding:
            bias_BM = legacy_memory_bias(is_real_BT, self.grid.shape[0], self.grid.per_slab)
            return self.planes(self.video(video_BTHW3), bias_BM)
        mask_BM = self._tubelet_mask(is_real_BT)
        return self.planes(self.video(video_BTHW3, mask_BM), mask_BM)

    def _tubelet_mask(self, is_real_BT: torch.Tensor) -> torch.Tensor:
        has_real_BS = is_real_BT.unflatten(1, (self.grid.shape[0], -1)).any(dim=-1)
        return has_real_BS.repeat_interleave(self.grid.per_slab, dim=1)
