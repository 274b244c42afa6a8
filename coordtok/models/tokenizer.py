"""CoordTok: a long video as three planes, and any patch of it from its coordinates.

Under ZeRO-3 only a call of the whole model (`forward`) finds its parameters gathered; `encode`,
`decode` and `decode_at` are for a model that is in one piece.

Shapes: B batch, T frames, H rows, W columns, F chosen frames, G passes, N patches of a pass.
"""

import operator
from collections.abc import Iterator, Sequence
from itertools import groupby, islice

import torch
from torch import nn

from coordtok.config.errors import ConfigError, DataError
from coordtok.config.schema import TokenizerModelConfig
from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.groups import Group, Grouping, group_index, slab_groups
from coordtok.geometry.patches import unpatchify
from coordtok.geometry.pixels import overwrite_padding, real_frames
from coordtok.geometry.triplane import Triplane
from coordtok.models.decoder import Decoder
from coordtok.models.encoder import Encoder
from coordtok.models.layers import BlockStack


class CoordTok(nn.Module):
    """Coordinate-based video tokenizer (PAPER.md; arXiv 2411.14762)."""

    points_per_pass = 1024
    """What `decode` aims at when not told: the patches a clip was trained with (PAPER: N)."""

    def __init__(self, config: TokenizerModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Recompute each block's insides in the backward pass: less memory, the same gradients."""
        for module in self.modules():
            if isinstance(module, BlockStack):
                module.activation_checkpointing = enabled

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
    ) -> Triplane:
        """The planes of `video` (B, T, H, W, 3), uint8 or float in [-1, 1]; float32.

        num_frames: (B,) real frames of each clip, if any is padded. What padded frames hold has no
        influence on the result. Kept on the host, it costs no wait for the device.
        """
        return self._encode(video.to(self.decoder.position.device), num_frames)

    def _encode(
        self, video: torch.Tensor, num_frames: torch.Tensor | Sequence[int] | None
    ) -> Triplane:
        check_video(video, self.config)
        num_frames_B = check_num_frames(num_frames, len(video), self.config.frames)
        if num_frames_B is None:
            return self.encoder(video)
        is_real_BT = real_frames(num_frames_B.to(video.device), self.config.frames)
        return self.encoder(overwrite_padding(video, is_real_BT), is_real_BT)

    def decode_at(self, planes: Triplane, index_BN3: torch.Tensor) -> torch.Tensor:
        """Pixels (B, N, pt, ph, pw, 3) of the patches with indices (t, y, x), float32."""
        check_index(index_BN3, self.decoder.grid)
        return self.decoder(planes, index_BN3.unsqueeze(1)).squeeze(1)

    @torch.no_grad()
    def decode(
        self,
        planes: Triplane,
        frames: Sequence[int] | torch.Tensor | None = None,
        points_per_pass: int | None = None,
        *,
        grouping: Grouping = "strided",
        seed: int = 0,
        groups_per_pass: int = 1,
    ) -> torch.Tensor:
        """The video (B, F, H, W, 3), or only `frames` of it (any, in any order); float32, no grad.

        Patches are decoded in passes of about `points_per_pass`, grouped by whole frames (see
        `geometry.groups`, also for `grouping` and `seed`); only the passes that hold a wanted frame
        are run, `groups_per_pass` of them at a time, so memory does not grow with the length.
        """
        if groups_per_pass < 1:
            raise ConfigError(f"groups_per_pass is {groups_per_pass}; decode at least 1 at a time")
        wanted = check_frames(frames, self.config.frames)
        points = self.points_per_pass if points_per_pass is None else points_per_pass
        groups = slab_groups(self.decoder.grid, points, grouping, seed)
        shape = (len(planes.xy), len(wanted), *self.config.video_size[1:], 3)
        video_BFHW3 = planes.xy.new_empty(shape, dtype=torch.float32)
        for part in self._passes(groups, wanted, groups_per_pass):
            frames_BFHW3, decoded = self._decode_groups(planes, part)
            place = {frame: position for position, frame in enumerate(decoded)}
            targets = [i for i, frame in enumerate(wanted) if frame in place]
            video_BFHW3[:, targets] = frames_BFHW3[:, [place[wanted[i]] for i in targets]]
        return video_BFHW3

    def _passes(
        self, groups: Sequence[Group], wanted: Sequence[int], groups_per_pass: int
    ) -> Iterator[list[Group]]:
        """The groups that hold a wanted frame, in runs of equal size that are decoded together."""
        slabs = {frame // self.config.decoder_patch[0] for frame in wanted}
        needed = sorted((group for group in groups if slabs.intersection(group)), key=len)
        for _, same_size in groupby(needed, key=len):
            while part := list(islice(same_size, groups_per_pass)):
                yield part

    def _decode_groups(
        self, planes: Triplane, groups: Sequence[Group]
    ) -> tuple[torch.Tensor, list[int]]:
        """The frames of some groups of equal size, (B, F, H, W, 3), and which frames they are."""
        grid, device = self.decoder.grid, planes.xy.device
        index_GN3 = torch.stack([group_index(grid, group, device) for group in groups])
        pixels = self.decoder(planes, index_GN3.expand(len(planes.xy), -1, -1, -1))
        depth = grid.patch[0]
        frames = [slab * depth + i for group in groups for slab in group for i in range(depth)]
        return unpatchify(pixels.flatten(1, 2), grid), frames


def check_video(video: torch.Tensor, config: TokenizerModelConfig) -> None:
    expected = (*config.video_size, 3)
    if video.ndim != 5 or tuple(video.shape[1:]) != expected:
        raise DataError(
            f"video has shape {tuple(video.shape)}; this model takes (B, *{expected}): resize, "
            "crop or pad it (and pass num_frames for what is padded)"
        )
    if video.dtype != torch.uint8 and not video.is_floating_point():
        raise DataError(f"video is {video.dtype}; pass uint8, or float in [-1, 1]")


def check_num_frames(
    num_frames: torch.Tensor | Sequence[int] | None, clips: int, frames: int
) -> torch.Tensor | None:
    """Real frames of each clip, (B,); None where no clip is padded, so that nothing is masked."""
    if num_frames is None:
        return None
    num_frames_B = torch.as_tensor(num_frames)
    if num_frames_B.is_floating_point():
        raise DataError(f"num_frames is {num_frames_B.dtype}; give whole numbers of frames")
    if num_frames_B.shape != (clips,):
        raise DataError(
            f"num_frames has shape {tuple(num_frames_B.shape)}; give one number for each of the "
            f"{clips} clips"
        )
    if ((num_frames_B < 1) | (num_frames_B > frames)).any():
        raise DataError(f"num_frames is {num_frames_B.tolist()}; each must be 1 to {frames}")
    return None if (num_frames_B == frames).all() else num_frames_B


def check_index(index_BN3: torch.Tensor, grid: PatchGrid) -> None:
    limit = torch.tensor(grid.shape, device=index_BN3.device)
    if ((index_BN3 < 0) | (index_BN3 >= limit)).any():
        raise ConfigError(
            f"the index holds a patch outside the grid {grid.shape}; patches are (t, y, x), "
            "counted from 0"
        )


def check_frames(frames: Sequence[int] | torch.Tensor | None, total: int) -> list[int]:
    """The wanted frames, counted from 0; negative ones count from the end, as in indexing."""
    if frames is None:
        return list(range(total))
    wanted = [operator.index(frame) for frame in frames]
    for frame in wanted:
        if not -total <= frame < total:
            raise ConfigError(f"frame {frame} is outside the video; it has {total} frames")
    return [frame % total for frame in wanted]
