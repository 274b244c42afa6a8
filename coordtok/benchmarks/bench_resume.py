"""How long a run waits for its first clip when it goes on far into an epoch.

What takes time there is opening a large dataset and finding the place; so the dataset has many
samples, and they are tiny.
"""

import time
from pathlib import Path
from typing import Any

from coordtok.benchmarks.loader_sides import SHUFFLE_BLOCK
from coordtok.benchmarks.synthetic import write_noise_shards
from coordtok.data.index import DEFAULT_LANES, VideoSpec
from coordtok.data.loader import TrainLoader
from coordtok.data.order import Cursor
from coordtok.data.sequence import LoaderState
from coordtok.data.shards import open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import ConfigError

_CLIP = VideoSpec(frames=4, height=8, width=8, fps=None)
_SHARDS_PER_LANE = 4


def measure_resume(folder: Path, samples: int, lanes: int = DEFAULT_LANES) -> dict[str, Any]:
    """Make a dataset of about `samples` samples in `folder` and resume late in its first epoch.

    The time is that of a start: the index is read and checked, and one loader process is started.
    """
    per_shard = samples // (lanes * _SHARDS_PER_LANE)
    if per_shard < 1:
        least = lanes * _SHARDS_PER_LANE
        raise ConfigError(f"--resume-samples {samples}: it must be at least {least}")
    location = write_noise_shards(
        folder,
        _CLIP,
        lanes=lanes,
        shards_per_lane=_SHARDS_PER_LANE,
        samples_per_shard=per_shard,
    )
    last = Cursor(epoch=0, shard=_SHARDS_PER_LANE - 1, sample=per_shard // 2)
    used = lanes * ((_SHARDS_PER_LANE - 1) * per_shard + last.sample)
    began = time.perf_counter()
    opened = open_shards(location)
    opened_after = time.perf_counter() - began
    loader = TrainLoader(
        [opened],
        VideoWindows(_CLIP.frames, _CLIP.height, _CLIP.width),
        seed=0,
        rank=0,
        world_size=1,
        micro_batch=1,
        workers=1,
        prefetch=2,
        shuffle_block=SHUFFLE_BLOCK,
        state=LoaderState(used, ((last,) * lanes,)),
    )
    batches = iter(loader)
    next(batches)
    return {
        "seconds": time.perf_counter() - began,
        "of_which_reading_the_index": opened_after,
        "samples": opened.index.samples,
        "position": used,
    }
