"""Clips with padding as the authors' release encodes them: the `model.legacy_padding` switch.

Its weights saw padding in training this way, and results for short clips are comparable only with
it. Padded pixels are -3; the video ViT has no mask; the cross-attention adds 1 to the logits of
padded tubelets, where a mask was meant, so that they are attended to more, not less; and a tubelet
counts as padded unless all of its frames are real (of 20 frames the third tubelet of 8 does).

Shapes: B batch, T frames, H rows, W columns, S slabs of tubelets, L tubelets.
"""

import torch

from coordtok.geometry.pixels import from_uint8, overwrite_padding

PADDING_PIXEL = -3.0
PADDING_LOGIT = 1.0


def legacy_overwrite_padding(video_BTHW3: torch.Tensor, is_real_BT: torch.Tensor) -> torch.Tensor:
    """A float copy, in [-1, 1] where frames are real."""
    if video_BTHW3.dtype == torch.uint8:
        video_BTHW3 = from_uint8(video_BTHW3)
    return overwrite_padding(video_BTHW3, is_real_BT, PADDING_PIXEL)


def legacy_memory_bias(is_real_BT: torch.Tensor, slabs: int, per_slab: int) -> torch.Tensor:
    """(B, L) float32: what is added to the cross-attention's logits of each tubelet."""
    is_whole_BS = is_real_BT.unflatten(1, (slabs, -1)).all(dim=-1)
    return (~is_whole_BS).float().mul_(PADDING_LOGIT).repeat_interleave(per_slab, dim=1)
