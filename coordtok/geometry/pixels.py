"""Pixels inside the model are float in [-1, 1]; everywhere outside they are uint8.

Shapes: B batch, T frames, H rows, W columns, 3 colours.
"""

import math

import torch


def from_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 to float32 -1..1, on the tensor's own device."""
    return pixels.to(torch.float32).div_(127.5).sub_(1)


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """The inverse of `from_uint8`, rounded to nearest and clipped to 0..255."""
    return pixels.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def clip_(pixels: torch.Tensor) -> torch.Tensor:
    """Float pixels brought into [-1, 1], in place; infinite ones become NaN, not the brightest, so
    that they stay visible."""
    return pixels.masked_fill_(pixels.isinf(), math.nan).clamp_(-1, 1)


def real_frames(num_frames_B: torch.Tensor, frames: int) -> torch.Tensor:
    """(B, T) bool, True where a frame of a padded clip is real."""
    return torch.arange(frames, device=num_frames_B.device) < num_frames_B[:, None]


def overwrite_padding(
    video_BTHW3: torch.Tensor, is_real_BT: torch.Tensor, value: float | None = None
) -> torch.Tensor:
    """A copy with `value`, or else black, in all padded frames, whatever they held; uint8 or
    float."""
    if value is None:
        value = 0 if video_BTHW3.dtype == torch.uint8 else -1.0
    return video_BTHW3.masked_fill(~is_real_BT[:, :, None, None, None], value)
