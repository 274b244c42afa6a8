"""Pixels inside the model are float in [-1, 1]; everywhere outside they are uint8.

Shapes: B batch, T frames, H rows, W columns, 3 colours.
"""

import math

import torch

from coordtok.geometry import bt709


def from_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 0..255 to float32 -1..1, on the tensor's own device."""
    return pixels.to(torch.float32).div_(127.5).sub_(1)


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """The inverse of `from_uint8`, rounded to nearest and clipped to 0..255."""
    return pixels.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def from_planes(planes_BTK: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """RGB (B, T, H, W, 3) uint8 of frames as they are stored, the planes Y', Cb and Cr of each in
    its K bytes: 4:4:4 if there are three bytes of a pixel, else 4:2:0. By the numbers of
    `geometry.bt709`, on the tensors' own device."""
    chroma = (height, width)
    if planes_BTK.shape[-1] != 3 * height * width:
        chroma = (-(-height // 2), -(-width // 2))
    sizes = [height * width, *[chroma[0] * chroma[1]] * 2]
    y, u, v = planes_BTK.split(sizes, dim=-1)
    u, v = (_widened(each.unflatten(-1, chroma), height, width).float() for each in (u, v))
    luma = bt709.LUMA * y.unflatten(-1, (height, width)).float()
    # Products by themselves: fused with a sum they would not be rounded.
    red = bt709.RED + luma + bt709.RED_V * v
    green = bt709.GREEN + luma + bt709.GREEN_U * u + bt709.GREEN_V * v
    blue = bt709.BLUE + luma + bt709.BLUE_U * u
    return torch.stack([red, green, blue], dim=-1).clamp_(0, 255).to(torch.uint8)


def _widened(chroma: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Cb or Cr (..., H, W), from half as many rows and columns where it has not all."""
    if chroma.shape[-2:] == (height, width):
        return chroma
    wide = _doubled(_doubled(chroma.to(torch.int16), -2), -1)[..., :height, :width]
    return (wide + 8) >> 4


def _doubled(narrow: torch.Tensor, axis: int) -> torch.Tensor:
    """Twice as many samples along an axis counted from the end, each 3 of the nearest and 1 of the
    next; at the border the nearest stands for the next."""
    count = narrow.shape[axis]
    first, last = narrow.narrow(axis, 0, 1), narrow.narrow(axis, count - 1, 1)
    before = torch.cat([first, narrow.narrow(axis, 0, count - 1)], axis)
    after = torch.cat([narrow.narrow(axis, 1, count - 1), last], axis)
    both = torch.stack([3 * narrow + before, 3 * narrow + after], axis)
    return both.flatten(axis - 1, axis)


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
