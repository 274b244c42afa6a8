"""From planes and patch coordinates to pixels.

    Decoder             what the planes hold at a patch, its position, blocks, pixels; the linear
                        path beside them
      PointEmbedding    what the planes hold at a point, as a token

Shapes: B batch, G passes, N patches of a pass, L = N tokens of the B * G passes, D width, C what
all planes hold at a point (`LatentShape.features`), P = pt * ph * pw * 3.
"""

import torch
from torch import nn

from coordtok.config.models import TokenizerModelConfig
from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.planes import Planes, read_at
from coordtok.models.layers import VIT_EPS, BlockStack, ViTBlock, output_linear
from coordtok.models.linear_path import LinearDecoder


class PointEmbedding(nn.Linear):
    """What the planes hold at a point, as a token."""

    def reset_parameters(self) -> None:
        """Three times torch's default, which brings what is read from fresh planes to about unit
        scale: 20 % less loss after 300 steps of a tiny model (two seeds)."""
        super().reset_parameters()
        with torch.no_grad():
            self.weight.mul_(3)


class Decoder(nn.Module):
    """A ViT over queried patches: those of one pass attend to each other, passes do not."""

    def __init__(self, config: TokenizerModelConfig) -> None:
        super().__init__()
        self.latent = config.latent
        self.grid = PatchGrid(config.video_size, config.decoder_patch)
        pt, ph, pw = config.decoder_patch
        self.embed = PointEmbedding(self.latent.features, config.dim)
        self.position = nn.Parameter(torch.empty(self.grid.count, config.dim))
        nn.init.normal_(self.position, std=config.dim**-0.5)  # as in the release
        self.blocks = BlockStack(
            ViTBlock(
                config.dim,
                config.heads,
                config.mlp_ratio,
                qkv_bias=True,
                zero_init=config.zero_init,
            )
            for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(config.dim, eps=VIT_EPS)
        zero_head = config.zero_init or config.linear_path
        self.head = output_linear(config.dim, pt * ph * pw * 3, zero_head)
        self.linear = LinearDecoder(config) if config.linear_path else None

    def forward(
        self, planes: Planes, index_BGN3: torch.Tensor, frame_offset: float = 0.0
    ) -> torch.Tensor:
        """Pixels (B, G, N, pt, ph, pw, 3), float32.

        frame_offset: where patches lie between their index along t and the next, in [0, 1): the
        position table and the linear path are interpolated linearly, and the planes are read
        there.
        """
        features_BGNC = self._read(planes, index_BGN3, frame_offset)
        tokens_BGND = self.embed(features_BGNC.to(self.embed.weight.dtype))
        tokens_BGND = tokens_BGND + self._position(index_BGN3, frame_offset)
        tokens_BLD = self.norm(self.blocks(tokens_BGND.flatten(0, 1)))
        pixels_BLP = self.head(tokens_BLD).float()
        pixels_BGNP3 = pixels_BLP.view(*index_BGN3.shape[:3], *self.grid.patch, 3)
        if self.linear is None:
            return pixels_BGNP3
        return pixels_BGNP3 + self._linear(self.linear, planes, index_BGN3, frame_offset)

    def _linear(
        self, linear: LinearDecoder, planes: Planes, index_BGN3: torch.Tensor, frame_offset: float
    ) -> torch.Tensor:
        pixels_BGNP3 = linear(planes, index_BGN3)
        if not frame_offset:
            return pixels_BGNP3
        return torch.lerp(pixels_BGNP3, linear(planes, self._following(index_BGN3)), frame_offset)

    def _read(self, planes: Planes, index_BGN3: torch.Tensor, frame_offset: float) -> torch.Tensor:
        coords_BN3 = self.grid.coordinates(index_BGN3.flatten(1, 2), frame_offset)
        return read_at(planes, coords_BN3, self.latent).unflatten(1, index_BGN3.shape[1:3])

    def _position(self, index_BGN3: torch.Tensor, frame_offset: float) -> torch.Tensor:
        position_BGND = nn.functional.embedding(self.grid.ravel(index_BGN3), self.position)
        if not frame_offset:
            return position_BGND
        return torch.lerp(
            position_BGND, self._position(self._following(index_BGN3), 0.0), frame_offset
        )

    def _following(self, index_BGN3: torch.Tensor) -> torch.Tensor:
        """The patches one further along t; those at the end themselves."""
        following_BGN3 = index_BGN3.clone()
        following_BGN3[..., 0].add_(1).clamp_(max=self.grid.shape[0] - 1)
        return following_BGN3
