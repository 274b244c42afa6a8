"""Training a CoordTok tokenizer: patches at random coordinates, and whole held-out clips.

The loop is handed this task and knows nothing of videos. uint8 goes to the device and is converted
there; which patches are decoded is drawn on the host from each sample's own generator.

Shapes: B batch, T frames, H rows, W columns, N patches, G groups, F shown frames, P a patch.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coordtok import distributed
from coordtok.config.models import TokenizerModelConfig
from coordtok.config.schema import RunConfig
from coordtok.data.clip_reader import ClipBatch
from coordtok.data.loader import Batch
from coordtok.data.order import sample_rng
from coordtok.data.shards import OpenedShards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import ConfigError
from coordtok.evaluation.linear_codec import LinearCodec
from coordtok.evaluation.metrics import psnr, psnr_of_mean_frame
from coordtok.geometry.draw import draw_points, draw_slabs
from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.groups import patch_groups
from coordtok.geometry.patches import gather, unpatchify, write
from coordtok.geometry.pixels import from_uint8
from coordtok.losses.perceptual import PerceptualDistance, check_size, load_perceptual
from coordtok.losses.reconstruction import mse_per_clip
from coordtok.models.linear_fit import fit
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import TokenizerSettings
from coordtok.train.tasks.augment import augment
from coordtok.train.tasks.clips_to_fit import clips_to_fit
from coordtok.train.tasks.sending import send
from coordtok.train.tasks.task import ClipScore, Headline

BASELINES = {"psnr_mean_frame": "mean frame", "psnr_linear_codec": "linear codec"}
DISTANCE_NAMES = {"lpips": "lpips", "hed": "vgg_hed"}
"""What a perceptual network's distance is called in the metrics."""


USAGE = """\
                python scripts/reconstruct.py --model exports/{name} --input VIDEO --output out
your videos     python -m data_prep.build_shards --input VIDEOS --output shards/mine \\
                    --val-fraction 0.1
many GPUs       deepspeed --num_gpus 8 scripts/train.py --deepspeed ds_configs/zero3.json \\
                    --config tokenizer_l data.shards=shards/mine/train \\
                    data.val_shards=shards/mine/val run_dir=runs/mine"""


class TokenizerTask:
    model_class = CoordTok
    caption = "originals above reconstructions"
    usage = USAGE
    headline = Headline("psnr", "PSNR", 2, "dB", BASELINES)

    def __init__(
        self,
        run: RunConfig,
        model: TokenizerModelConfig,
        device: torch.device,
        datasets: Sequence[OpenedShards] = (),
    ) -> None:
        """datasets: whose clips the linear path is fitted to, where there is one."""
        self.run = run
        self.model = model
        self.device = device
        self._datasets = datasets
        self.facts: dict[str, Any] = {}
        self.grid = PatchGrid(model.video_size, model.decoder_patch)
        if run.train.points > self.grid.count and not run.train.replacement:
            raise ConfigError(
                f"train.points is {run.train.points}, but a clip has {self.grid.count} patches; "
                "lower it or set train.replacement=true"
            )
        self._passes = patch_groups(self.grid, run.train.points)
        self.score_settings = {"points_per_pass": max(len(index) for index in self._passes)}
        self._perceptual = self._load_perceptual()
        self._linear_codec = self._load_linear_codec()

    @classmethod
    def for_run(
        cls,
        run: RunConfig,
        device: torch.device,
        datasets: Sequence[OpenedShards],
        facts: dict[str, Any] | None,
    ) -> "TokenizerTask":
        """It needs no facts, and of the datasets nothing but their clips."""
        assert isinstance(run.model, TokenizerModelConfig)
        return cls(run, run.model, device, datasets)

    @classmethod
    def export_settings(cls, run: RunConfig, facts: dict[str, Any]) -> TokenizerSettings:
        return TokenizerSettings(run.train.points)

    def _load_perceptual(self) -> PerceptualDistance | None:
        """The frozen network of the fine-tune: no part of the model, so that neither ZeRO nor a
        checkpoint ever sees it."""
        wanted = self.run.perceptual
        if wanted.weight == 0:
            return None
        check_size(self.model.height, self.model.width)
        return distributed.together(
            lambda: load_perceptual(wanted.network, wanted.weights, self.device)
        )

    def _load_linear_codec(self) -> LinearCodec | None:
        path = self.run.data.linear_codec
        if path is None:
            return None
        size, numbers = self.model.video_size, self.model.latent.numbers
        return distributed.together(lambda: LinearCodec.load(Path(path), size, numbers))

    def build_model(self) -> CoordTok:
        model = CoordTok(self.model)
        model.points_per_pass = self.run.train.points
        model.set_activation_checkpointing(self.run.train.activation_checkpointing)
        return model

    def fitted_weights(self) -> dict[str, torch.Tensor]:
        if not self.model.linear_path:
            return {}
        return fit(self.model, clips_to_fit(self._datasets, self.reader(), self.run.seed))

    def reader(self) -> VideoWindows:
        return VideoWindows(*self.model.video_size)

    def loss(self, engine: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Of each clip, (B,) float32: mean squared error on its drawn patches; in the fine-tune
        that is "l2", and beside it stands the mean distance of the frames that they make up."""
        video_BTHW3 = augment(
            send(batch.data["video"], self.device),
            batch.data["num_frames"].tolist(),
            batch.ids,
            self.run.seed,
            self.run.train.augment,
        )
        index_BN3 = send(self._draw(batch), self.device)
        predicted_BNP3, target_BNP3 = self._patches(
            engine, video_BTHW3, index_BN3, batch.data["num_frames"]
        )
        l2_B = mse_per_clip(predicted_BNP3, target_BNP3)
        if self._perceptual is None:
            return {"loss": l2_B}
        distance_B = self._distance(self._perceptual, predicted_BNP3, target_BNP3)
        name = DISTANCE_NAMES[self.run.perceptual.network]
        return {
            "loss": l2_B + self.run.perceptual.weight * distance_B,
            "l2": l2_B,
            name: distance_B,
        }

    def _distance(
        self,
        perceptual: PerceptualDistance,
        predicted_BNP3: torch.Tensor,
        target_BNP3: torch.Tensor,
    ) -> torch.Tensor:
        """The mean distance of each clip's drawn frames, (B,)."""
        predicted_BFHW3, target_BFHW3 = (
            unpatchify(patches, self.grid) for patches in (predicted_BNP3, target_BNP3)
        )
        distance_F = perceptual(predicted_BFHW3.flatten(0, 1), target_BFHW3.flatten(0, 1))
        return distance_F.unflatten(0, predicted_BFHW3.shape[:2]).mean(dim=1)

    def _patches(
        self,
        engine: Any,
        video_BTHW3: torch.Tensor,
        index_BN3: torch.Tensor,
        num_frames_B: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The indexed patches as decoded and as they are, each (B, N, pt, ph, pw, 3)."""
        target_BNP3 = from_uint8(gather(video_BTHW3, index_BN3, self.grid.patch))
        is_whole = bool((num_frames_B == self.model.frames).all())
        return engine(video_BTHW3, index_BN3, None if is_whole else num_frames_B), target_BNP3

    def _draw(self, batch: Batch) -> torch.Tensor:
        """index_BN3. A clip too short for N different patches has some of them twice."""
        train = self.run.train
        draw = draw_slabs if train.whole_frames else draw_points
        index = []
        for sample, frames in zip(batch.ids, batch.data["num_frames"].tolist()):
            rng = sample_rng(self.run.seed, *sample, "points")
            slabs = max(1, frames // self.grid.patch[0])
            repeat = train.replacement or slabs * self.grid.per_slab < train.points
            index.append(draw(rng, self.grid, train.points, frames, repeat))
        return torch.from_numpy(np.stack(index))

    @torch.no_grad()
    def forward_check(self, engine: Any) -> float:
        """l2 on a fixed random clip: what a checkpoint's weights must reproduce when loaded."""
        rng = np.random.Generator(np.random.Philox(key=0))
        video = rng.integers(0, 256, (1, *self.grid.size, 3), dtype=np.uint8)
        index = draw_points(rng, self.grid, min(256, self.grid.count))
        video_BTHW3 = torch.from_numpy(video).to(self.device)
        index_BN3 = torch.from_numpy(index)[None].to(self.device)
        frames_B = torch.tensor([self.model.frames])
        return float(mse_per_clip(*self._patches(engine, video_BTHW3, index_BN3, frames_B)))

    @torch.no_grad()
    def score(self, engine: Any, batch: ClipBatch) -> dict[int, ClipScore]:
        """PSNR in dB of all frames of each clip, beside that of its mean frame and of the linear
        codec, if there is one; the original and its reconstruction."""
        video_BTHW3 = batch.data["video"].to(self.device)
        predicted_BTHW3 = self._reconstruct(engine, video_BTHW3, batch.data["num_frames"])
        target_BTHW3 = from_uint8(video_BTHW3)
        frames_B = batch.data["num_frames"].tolist()
        videos = [predicted_BTHW3, target_BTHW3]
        if self._linear_codec is not None:
            videos.append(self._linear_codec.reconstruct(batch.data["video"].cpu()).to(self.device))
        return {
            number: _score(*(video[place, : frames_B[place]] for video in videos))
            for place, number in batch.numbers.items()
        }

    def warning(self, values: dict[str, float]) -> str:
        above = [
            f"the {what} {values[name]:.2f}"
            for name, what in BASELINES.items()
            if values.get(name, -math.inf) > values["psnr"]
        ]
        return f"held-out below {' and '.join(above)}" if above else ""

    def samples(self, engine: Any, averaged: AbstractContextManager[None]) -> list[np.ndarray]:
        """None: a tokenizer makes nothing of its own."""
        return []

    def _reconstruct(
        self, engine: Any, video_BTHW3: torch.Tensor, num_frames_B: torch.Tensor
    ) -> torch.Tensor:
        """All patches, in the groups of `CoordTok.decode`: equal groups share a forward pass."""
        result_BTHW3 = torch.empty(video_BTHW3.shape, device=self.device)
        for size in sorted({len(index) for index in self._passes}):
            index_GN3 = torch.stack([index for index in self._passes if len(index) == size])
            index_BGN3 = index_GN3.to(self.device).expand(len(video_BTHW3), -1, -1, -1)
            pixels = engine(video_BTHW3, index_BGN3, num_frames_B, groups_per_pass=1)
            write(result_BTHW3, pixels.flatten(1, 2), index_BGN3.flatten(1, 2))
        return result_BTHW3


def _score(
    predicted_THW3: torch.Tensor,
    target_THW3: torch.Tensor,
    linear_THW3: torch.Tensor | None = None,
) -> ClipScore:
    values = {
        "psnr": psnr(predicted_THW3, target_THW3),
        "psnr_mean_frame": psnr_of_mean_frame(target_THW3),
    }
    if linear_THW3 is not None:
        values["psnr_linear_codec"] = psnr(linear_THW3, target_THW3)
    return ClipScore(values, [target_THW3, predicted_THW3])
