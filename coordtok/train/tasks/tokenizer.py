"""Training a CoordTok tokenizer: patches at random coordinates, and whole held-out clips.

The loop is handed this task and knows nothing of videos. uint8 goes to the device and is converted
there; which patches are decoded is drawn on the host from each sample's own generator.

Shapes: B batch, T frames, H rows, W columns, N patches, G groups, F shown frames, P a patch.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from coordtok.config.errors import ConfigError
from coordtok.config.schema import RunConfig
from coordtok.data.loader import Batch, VideoWindows
from coordtok.data.order import sample_rng
from coordtok.evaluation.metrics import psnr
from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.groups import group_index, slab_groups
from coordtok.geometry.patches import gather, scatter
from coordtok.geometry.pixels import from_uint8, to_uint8
from coordtok.geometry.sampling import draw_points
from coordtok.losses.reconstruction import mse_per_clip
from coordtok.models.tokenizer import CoordTok

SHOWN_FRAMES = 8


class ClipScore(NamedTuple):
    """A held-out clip's PSNR in dB, that of showing its mean frame, and frames for a picture."""

    psnr: float
    psnr_mean_frame: float
    original_FHW3: np.ndarray
    reconstruction_FHW3: np.ndarray


class TokenizerTask:
    def __init__(self, run: RunConfig, device: torch.device) -> None:
        self.run = run
        self.device = device
        self.grid = PatchGrid(run.model.video_size, run.model.decoder_patch)
        if run.train.points > self.grid.count and not run.train.replacement:
            raise ConfigError(
                f"train.points is {run.train.points}, but a clip has {self.grid.count} patches; "
                "lower it or set train.replacement=true"
            )
        groups = slab_groups(self.grid, run.train.points)
        self.points_per_pass = max(len(group) for group in groups) * self.grid.per_slab
        self._passes = [group_index(self.grid, group) for group in groups]

    def build_model(self) -> CoordTok:
        model = CoordTok(self.run.model)
        model.points_per_pass = self.run.train.points
        model.set_activation_checkpointing(self.run.train.activation_checkpointing)
        return model

    def reader(self) -> VideoWindows:
        return VideoWindows(*self.run.model.video_size)

    def loss(self, engine: Any, batch: Batch) -> torch.Tensor:
        """Loss of each clip, (B,) float32: mean squared error on its drawn patches."""
        video_BTHW3 = batch.data["video"].to(self.device, non_blocking=True)
        index_BN3 = self._draw(batch).to(self.device, non_blocking=True)
        return self._loss(engine, video_BTHW3, index_BN3, batch.data["num_frames"])

    def _loss(
        self,
        engine: Any,
        video_BTHW3: torch.Tensor,
        index_BN3: torch.Tensor,
        num_frames_B: torch.Tensor,
    ) -> torch.Tensor:
        target = from_uint8(gather(video_BTHW3, index_BN3, self.grid.patch))
        is_whole = bool((num_frames_B == self.run.model.frames).all())
        predicted = engine(video_BTHW3, index_BN3, None if is_whole else num_frames_B)
        return mse_per_clip(predicted, target)

    def _draw(self, batch: Batch) -> torch.Tensor:
        """index_BN3. A clip too short for N different patches has some of them twice."""
        index = []
        for sample, frames in zip(batch.ids, batch.data["num_frames"].tolist()):
            rng = sample_rng(self.run.seed, *sample, "points")
            slabs = max(1, frames // self.grid.patch[0])
            repeat = (
                self.run.train.replacement or slabs * self.grid.per_slab < self.run.train.points
            )
            index.append(draw_points(rng, self.grid, self.run.train.points, frames, repeat))
        return torch.from_numpy(np.stack(index))

    @torch.no_grad()
    def forward_check(self, engine: Any) -> float:
        """Loss on a fixed random clip: what a checkpoint's weights must reproduce when loaded."""
        rng = np.random.Generator(np.random.Philox(key=0))
        video = rng.integers(0, 256, (1, *self.grid.size, 3), dtype=np.uint8)
        index = draw_points(rng, self.grid, min(256, self.grid.count))
        video_BTHW3 = torch.from_numpy(video).to(self.device)
        index_BN3 = torch.from_numpy(index)[None].to(self.device)
        frames_B = torch.tensor([self.run.model.frames])
        return float(self._loss(engine, video_BTHW3, index_BN3, frames_B))

    @torch.no_grad()
    def score(self, engine: Any, batch: Batch) -> list[ClipScore | None]:
        """Reconstruct every frame of each clip; None for those that only fill up the batch.

        All ranks must call this as often: the forward pass is collective under ZeRO-3.
        """
        video_BTHW3 = batch.data["video"].to(self.device)
        predicted_BTHW3 = self._reconstruct(engine, video_BTHW3, batch.data["num_frames"])
        target_BTHW3 = from_uint8(video_BTHW3)
        return [
            _score(predicted_BTHW3[i, :frames], target_BTHW3[i, :frames]) if valid else None
            for i, (frames, valid) in enumerate(
                zip(batch.data["num_frames"].tolist(), batch.data["valid"].tolist())
            )
        ]

    def _reconstruct(
        self, engine: Any, video_BTHW3: torch.Tensor, num_frames_B: torch.Tensor
    ) -> torch.Tensor:
        """All patches, in the groups of `CoordTok.decode`: equal groups share a forward pass."""
        result_BTHW3 = torch.zeros(video_BTHW3.shape, device=self.device)
        for size in sorted({len(index) for index in self._passes}):
            index_GN3 = torch.stack([index for index in self._passes if len(index) == size])
            index_BGN3 = index_GN3.to(self.device).expand(len(video_BTHW3), -1, -1, -1)
            pixels = engine(video_BTHW3, index_BGN3, num_frames_B, groups_per_pass=1)
            result_BTHW3 += scatter(pixels.flatten(1, 2), index_BGN3.flatten(1, 2), self.grid.size)
        return result_BTHW3


def _score(predicted_THW3: torch.Tensor, target_THW3: torch.Tensor) -> ClipScore:
    mean_frame = target_THW3.mean(0, keepdim=True).expand_as(target_THW3)
    shown = torch.linspace(0, len(target_THW3) - 1, SHOWN_FRAMES).long()
    return ClipScore(
        psnr(predicted_THW3, target_THW3),
        psnr(mean_frame, target_THW3),
        to_uint8(target_THW3[shown]).cpu().numpy(),
        to_uint8(predicted_THW3[shown]).cpu().numpy(),
    )
