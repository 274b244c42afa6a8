"""Clips shown in other ways than they are stored (`train.augment`).

Shapes: B batch, T frames, H rows, W columns.
"""

from collections.abc import Collection, Sequence

import torch

from coordtok.data.order import sample_rng
from coordtok.data.sample import SampleId


def augment(
    video_BTHW3: torch.Tensor,
    num_frames: Sequence[int],
    ids: Sequence[SampleId],
    seed: int,
    kinds: Collection[str],
) -> torch.Tensor:
    """The clips, every second one mirrored left to right ("flip") and every second one backwards
    ("reverse"), as each one's own generator says; padding stays behind its `num_frames`."""
    if not kinds:
        return video_BTHW3
    clips = []
    for video_THW3, frames, sample in zip(video_BTHW3, num_frames, ids, strict=True):
        flip, reverse = sample_rng(seed, *sample, "augment").integers(2, size=2)
        if flip and "flip" in kinds:
            video_THW3 = video_THW3.flip(2)
        if reverse and "reverse" in kinds:
            video_THW3 = torch.cat([video_THW3[:frames].flip(0), video_THW3[frames:]])
        clips.append(video_THW3)
    return torch.stack(clips)
