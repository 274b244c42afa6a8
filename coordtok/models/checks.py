"""What a caller may hand to a model; every mistake is one line with the value and the rule.

Shapes: B batch, N patches.
"""

import operator
from collections.abc import Iterable, Sequence
from fractions import Fraction

import torch

from coordtok.config.models import TokenizerModelConfig
from coordtok.errors import ConfigError, DataError
from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.latent import LatentShape
from coordtok.geometry.planes import Planes


def check_video(video: torch.Tensor, config: TokenizerModelConfig) -> None:
    frames, height, width = config.video_size
    if tuple(video.shape[1:]) != (frames, height, width, 3):
        raise DataError(
            f"video has shape {tuple(video.shape)}; this model takes (B, {frames}, {height}, "
            f"{width}, 3): resize, crop or pad it (num_frames says what is padded)"
        )
    if video.dtype != torch.uint8 and not video.is_floating_point():
        raise DataError(f"video is {video.dtype}; pass uint8, or float in [-1, 1]")


def check_range(video: torch.Tensor) -> None:
    """Raise DataError if a float video leaves [-1, 1]."""
    if not video.numel():
        return
    least, most = (float(value) for value in video.detach().aminmax())
    if not -1 <= least <= most <= 1:
        raise DataError(
            f"video holds values from {least:g} to {most:g}; float pixels are in [-1, 1]: pass "
            "uint8, or bring 0..255 there by video / 127.5 - 1"
        )


def check_num_frames(
    num_frames: torch.Tensor | Sequence[int] | None, clips: int, frames: int
) -> torch.Tensor | None:
    """Real frames of each clip, (B,), on the host; None where no clip is padded, so that nothing is
    masked."""
    if num_frames is None:
        return None
    num_frames_B = torch.as_tensor(num_frames).cpu()
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


def check_planes(planes: Planes, latent: LatentShape) -> None:
    if planes._fields != latent.names:
        raise DataError(
            f"the planes are {', '.join(planes._fields)}; this model's are "
            f"{', '.join(latent.names)}: use the model that encoded them, or one that was trained "
            "on its latents"
        )
    for found, plane in zip(planes, latent.planes):
        if tuple(found.shape[1:]) != plane.shape:
            rows, columns, channels = plane.shape
            raise DataError(
                f"plane {plane.name} has shape {tuple(found.shape)}; this model's are (B, {rows}, "
                f"{columns}, {channels}): use the model that encoded it, or one that was trained "
                "on its latents"
            )


def check_index(index_BN3: torch.Tensor, grid: PatchGrid) -> None:
    if index_BN3.is_floating_point() or index_BN3.ndim != 3 or index_BN3.shape[-1] != 3:
        raise ConfigError(
            f"the index is {index_BN3.dtype} of shape {tuple(index_BN3.shape)}; give int64 (B, N, "
            "3), whose last axis is (t, y, x)"
        )
    limit = torch.tensor(grid.shape, device=index_BN3.device)
    if ((index_BN3 < 0) | (index_BN3 >= limit)).any():
        raise ConfigError(
            f"the index holds a patch outside the grid {grid.shape}; patches are (t, y, x), "
            "counted from 0"
        )


def check_between(config: TokenizerModelConfig) -> None:
    """Raise ConfigError if a model has nothing between its frames that could be decoded."""
    if config.decoder_patch[0] != 1 or config.frames == 1:
        raise ConfigError(
            f"model.decoder_patch is {config.decoder_patch} of {config.frames} frames; times "
            "between frames need a model of several frames whose patches are one frame deep"
        )


def check_times(
    times: Iterable[float | Fraction], config: TokenizerModelConfig
) -> list[tuple[int, float]]:
    """Of each time, in frames from 0: the frame at or before it, and its offset from that frame, in
    [0, 1), to a millionth."""
    check_between(config)
    places = []
    for time in times:
        if not 0 <= time <= config.frames - 1:
            raise ConfigError(
                f"time {float(time):g} is outside the video; its frames are at 0 to "
                f"{config.frames - 1}"
            )
        rounded = round(float(time), 6)
        places.append((int(rounded), round(rounded % 1, 6)))
    return places


def check_frames(frames: Sequence[int] | torch.Tensor | None, total: int) -> list[int]:
    """The wanted frames, counted from 0; negative ones count from the end, as in indexing."""
    if frames is None:
        return list(range(total))
    wanted = [operator.index(frame) for frame in frames]
    for frame in wanted:
        if not -total <= frame < total:
            raise ConfigError(f"frame {frame} is outside the video; it has {total} frames")
    return [frame % total for frame in wanted]
