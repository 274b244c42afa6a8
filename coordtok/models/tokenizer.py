"""CoordTok: a long video as planes, and any patch of it from its coordinates.

Under ZeRO-3 only a call of the whole model (`forward`) finds its parameters gathered; `encode`,
`decode` and `decode_at` are for a model that is in one piece.

Shapes: B batch, T frames, H rows, W columns, F chosen frames, G passes, N patches of a pass.
"""

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import groupby, islice
from pathlib import Path

import torch
from torch import nn

from coordtok.config.models import TokenizerModelConfig
from coordtok.config.training import Recomputation
from coordtok.errors import ConfigError
from coordtok.geometry.groups import DEFAULT_GROUPING, Grouping, patch_groups
from coordtok.geometry.patches import write
from coordtok.geometry.pixels import clip_, overwrite_padding, real_frames
from coordtok.geometry.planes import Planes
from coordtok.models.checks import (
    check_frames,
    check_index,
    check_num_frames,
    check_planes,
    check_range,
    check_times,
    check_video,
)
from coordtok.models.decoder import Decoder
from coordtok.models.encoder import Encoder
from coordtok.models.layers import block_stacks
from coordtok.models.legacy import legacy_overwrite_padding
from coordtok.pretrained.hub import local_export
from coordtok.pretrained.read import load_model

TOKENS_AT_ONCE = 1 << 15
"""Of `decode` on a GPU: 32 passes of 1,024 patches, a whole clip of 128 x 128 x 128 at one patch of
8 x 8 a token, whose widest activation takes 268 MB in bf16 at the width of tokenizer_l."""


class CoordTok(nn.Module):
    """Coordinate-based video tokenizer (docs/method.md; arXiv 2411.14762)."""

    points_per_pass = 1024
    """What `decode` aims at by default: the patches a clip was trained with."""

    def __init__(self, config: TokenizerModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
    ) -> "CoordTok":
        """The tokenizer of an export (scripts/export.py, scripts/import_official.py), in eval mode.

        folder: the export's, or the id of a model on the Hub (OWNER/NAME; extra `hf`), and
        revision: a branch, a tag or a commit there. device: the CPU by default. dtype: of the
        weights; None keeps the one they are stored in.
        """
        model, card = load_model(cls, "coordtok", local_export(folder, revision), device, dtype)
        model.points_per_pass = card.settings.points_per_pass
        return model

    @property
    def device(self) -> torch.device:
        return self.decoder.position.device

    def set_activation_checkpointing(self, kind: Recomputation) -> None:
        """Less memory for more operations in the backward pass, with the same gradients."""
        for stack in block_stacks(self):
            stack.set_activation_checkpointing(kind)

    def forward(
        self,
        video: torch.Tensor,
        index: torch.Tensor,
        num_frames: torch.Tensor | None = None,
        groups_per_pass: int | None = None,
    ) -> torch.Tensor:
        """Reconstruct the indexed patches of `video`.

        video: (B, T, H, W, 3), uint8 or float in [-1, 1]; index: (B, N, 3) or (B, G, N, 3) int64,
        where the patches of each of G groups attend to each other only; num_frames: (B,) real
        frames of each clip, or None where all are; groups_per_pass: how many groups are decoded at
        once, all by default. Returns pixels (B, [G,] N, pt, ph, pw, 3), float32.
        """
        planes = self._encode(video, num_frames)
        index_BGN3 = index.unsqueeze(1) if index.ndim == 3 else index
        size = index_BGN3.shape[1] if groups_per_pass is None else groups_per_pass
        pixels = [self.decoder(planes, part) for part in index_BGN3.split(size, dim=1)]
        pixels_BGNP3 = pixels[0] if len(pixels) == 1 else torch.cat(pixels, dim=1)
        return pixels_BGNP3.squeeze(1) if index.ndim == 3 else pixels_BGNP3

    def encode(
        self, video: torch.Tensor, num_frames: torch.Tensor | Sequence[int] | None = None
    ) -> Planes:
        """The planes of `video` (B, T, H, W, 3), uint8 or float in [-1, 1]: a `Triplane`, if the
        config has the paper's planes; float32.

        num_frames: (B,) real frames of each clip, if any is padded. What padded frames hold has no
        influence on the result. Kept on the host, it costs no wait for the device.

        Raises:
            DataError: another shape, type or number of frames, or float pixels beyond [-1, 1].
        """
        return self._encode(video.to(self.device), num_frames, check_floats=True)

    def _encode(
        self,
        video: torch.Tensor,
        num_frames: torch.Tensor | Sequence[int] | None,
        check_floats: bool = False,
    ) -> Planes:
        """check_floats: look at the range of float pixels, which on a GPU waits for them."""
        check_video(video, self.config)
        num_frames_B = check_num_frames(num_frames, len(video), self.config.frames)
        check_floats &= video.is_floating_point()
        if num_frames_B is None:
            if check_floats:
                check_range(video)
            return self.encoder(video)
        is_real_BT = real_frames(num_frames_B, self.config.frames)
        is_real_BT = is_real_BT.to(video.device, non_blocking=True)
        if check_floats:
            check_range(video[is_real_BT])
        overwrite = legacy_overwrite_padding if self.config.legacy_padding else overwrite_padding
        return self.encoder(overwrite(video, is_real_BT), is_real_BT)

    def decode_at(self, planes: Planes, index_BN3: torch.Tensor) -> torch.Tensor:
        """Pixels (B, N, pt, ph, pw, 3) of the patches with indices (t, y, x), float32: as the
        network gives them, with gradients, and hence not clipped to [-1, 1]."""
        check_planes(planes, self.config.latent)
        check_index(index_BN3, self.decoder.grid)
        index_BGN3 = index_BN3.unsqueeze(1).to(self.device)
        return self.decoder(planes.to(self.device), index_BGN3).squeeze(1)

    @torch.no_grad()
    def decode(
        self,
        planes: Planes,
        frames: Sequence[int] | torch.Tensor | None = None,
        points_per_pass: int | None = None,
        *,
        times: Iterable[float | Fraction] | None = None,
        grouping: Grouping = DEFAULT_GROUPING,
        seed: int = 0,
        groups_per_pass: int | None = None,
    ) -> torch.Tensor:
        """The video (B, F, H, W, 3), or only `frames` of it (any, in any order); float32 in
        [-1, 1], no grad.

        Patches are decoded in passes of about `points_per_pass`, grouped as `geometry.groups` says
        (also for `grouping` and `seed`); only the passes that hold a wanted frame are run,
        `groups_per_pass` of them at a time, so memory does not grow with the length: by default one
        on a CPU, on a GPU as many as make about `TOKENS_AT_ONCE`. That is a matter of speed: pixels
        are the same to 1e-5.

        times: instead of `frames`, times counted in frames from 0, also between two frames, which
        training never saw (docs/in_between_frames.md). The pass of the frame before is decoded with
        all its frames at the same offset, so a time does not depend on which others are wanted.
        """
        if groups_per_pass is not None and groups_per_pass < 1:
            raise ConfigError(f"groups_per_pass is {groups_per_pass}; decode at least 1 at a time")
        if frames is not None and times is not None:
            raise ConfigError("both frames and times are given; choose one")
        check_planes(planes, self.config.latent)
        planes = planes.to(self.device)
        wanted = (
            [(frame, 0.0) for frame in check_frames(frames, self.config.frames)]
            if times is None
            else check_times(times, self.config)
        )
        points = self.points_per_pass if points_per_pass is None else points_per_pass
        groups = patch_groups(self.decoder.grid, points, grouping, seed)
        at_once = groups_per_pass or self._at_once(planes.batch * max(map(len, groups)))
        shape = (planes.batch, len(wanted), *self.config.video_size[1:], 3)
        video_BFHW3 = planes[0].new_empty(shape, dtype=torch.float32)
        for offset in sorted({offset for _, offset in wanted}):
            frame_F = torch.tensor([frame if each == offset else -1 for frame, each in wanted])
            for index_GN3 in _passes(groups, self._slabs(frame_F), at_once):
                index_BGN3 = index_GN3.to(self.device).expand(planes.batch, -1, -1, -1)
                pixels_BGNP3 = self.decoder(planes, index_BGN3, offset)
                self._place(video_BFHW3, pixels_BGNP3, index_GN3, frame_F)
        return clip_(video_BFHW3)

    def _at_once(self, tokens: int) -> int:
        """Groups of one forward pass, each of so many tokens."""
        return 1 if self.device.type == "cpu" else max(1, TOKENS_AT_ONCE // tokens)

    def _slabs(self, frame_F: torch.Tensor) -> torch.Tensor:
        return frame_F.div(self.config.decoder_patch[0], rounding_mode="floor")

    def _place(
        self,
        video_BFHW3: torch.Tensor,
        pixels_BGNP3: torch.Tensor,
        index_GN3: torch.Tensor,
        frame_F: torch.Tensor,
    ) -> None:
        """Write what some passes made into the frames of the video, whose numbers are `frame_F`."""
        t, y, x = index_GN3.flatten(0, 1).unbind(-1)
        patch, place = (t[:, None] == self._slabs(frame_F)).nonzero(as_tuple=True)
        depth = frame_F[place] % self.config.decoder_patch[0]
        index_N3 = torch.stack([place, y[patch], x[patch]], dim=-1).to(self.device)
        pixels_BNP3 = pixels_BGNP3.flatten(1, 2)[:, patch.to(self.device), depth.to(self.device)]
        write(video_BFHW3, pixels_BNP3.unsqueeze(2), index_N3.expand(len(video_BFHW3), -1, -1))


def _passes(
    groups: Sequence[torch.Tensor], slab_F: torch.Tensor, groups_per_pass: int
) -> Iterator[torch.Tensor]:
    """Indices (G, N, 3) of the groups that hold a patch of the slabs, those of equal size together,
    at most `groups_per_pass`."""
    needed = [group for group in groups if torch.isin(group[:, 0], slab_F).any()]
    for _, same_size in groupby(sorted(needed, key=len), key=len):
        while part := list(islice(same_size, groups_per_pass)):
            yield torch.stack(part)
