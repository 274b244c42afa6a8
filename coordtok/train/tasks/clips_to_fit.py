"""Training clips to fit a tokenizer's linear path to, before the first step.

Shapes: K clips, T frames, H rows, W columns, 3 colours.
"""

from collections.abc import Sequence

import torch

from coordtok.data.clip_reader import ClipReader
from coordtok.data.clips import draw_clips
from coordtok.data.shards import OpenedShards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import DataError

MOST_CLIPS = 512
MOST_BYTES = 1 << 30
"""Of all clips together, as float32."""


def clips_to_fit(datasets: Sequence[OpenedShards], read: VideoWindows, seed: int) -> torch.Tensor:
    """Random clips of the datasets, as many of each, (K, T, H, W, 3) uint8.

    Raises:
        DataError: no sample is as long as a clip, or none can be read.
    """
    clip_bytes = 4 * 3 * read.frames * read.height * read.width
    share = max(1, min(MOST_CLIPS, MOST_BYTES // clip_bytes) // len(datasets))
    clips = [clip for dataset in datasets for clip in _read(dataset, read, share, seed)]
    if not clips:
        raise DataError(
            f"data.shards have no readable clip of {read.frames} frames to fit model.linear_path "
            "to; set it to false, or give longer videos"
        )
    return torch.stack(clips)


def _read(dataset: OpenedShards, read: VideoWindows, number: int, seed: int) -> list[torch.Tensor]:
    stored = [sample.frames for shard in dataset.index.shards for sample in shard.samples]
    windows = sum(max(0, frames - read.frames + 1) for frames in stored)
    if not windows:
        return []
    clips = draw_clips(dataset.index, read.frames, min(number, windows), seed)
    batches = ClipReader(dataset, clips, read, batch=1)
    return [batch.data["video"][place] for batch in batches for place in batch.numbers]
