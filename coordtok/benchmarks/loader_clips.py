"""Which clips a loader benchmark reads: the first windows of the project's own sequence."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coordtok.data.loader import LoaderState, OpenedShards, VideoWindows
from coordtok.data.member import StoredSample
from coordtok.data.order import sample_rng
from coordtok.data.sequence import SampleId, SampleSequence
from coordtok.data.video_reader import draw_start
from coordtok.geometry.draw import draw_points
from coordtok.geometry.grid import PatchGrid, Size3

SHUFFLE_BLOCK = 16


@dataclass(frozen=True)
class ClipSettings:
    """What is read: by default the clips and patches of PAPER's main configuration."""

    clips: int = 40
    size: Size3 = (128, 128, 128)
    patch: Size3 = (1, 8, 8)
    points: int = 1024
    seed: int = 0

    def draw(self, clip: SampleId) -> np.ndarray:
        """index_N3 of a clip's target patches, as training draws them."""
        rng = sample_rng(self.seed, *clip, "points")
        return draw_points(rng, PatchGrid(self.size, self.patch), self.points)


class Window(NamedTuple):
    """A clip as the source video and the shards of every codec hold it."""

    id: SampleId
    video: Path
    start_in_video: int
    start_in_sample: int


def first_windows(
    opened: OpenedShards, videos: Path, settings: ClipSettings, count: int
) -> list[Window]:
    """The first `count` windows that a `TrainLoader` of one rank reads from these shards.

    `videos` is the folder of the videos that the shards were built from.
    """
    sequence = SampleSequence(
        [opened],
        _Places(*settings.size),
        seed=settings.seed,
        shuffle_block=SHUFFLE_BLOCK,
        state=LoaderState.start([opened]),
    )
    windows = []
    for position in range(count):
        item = sequence.read(position)
        start, info = item.values["start"], item.values["info"]
        place = videos / info["source"], info["start_frame"] + start, start
        windows.append(Window(item.id, *place))
    return windows


class _Places(VideoWindows):
    """Tells where a window lies instead of reading it."""

    def __call__(self, sample: StoredSample, rng: np.random.Generator) -> Mapping[str, Any]:
        start = draw_start(rng, sample.entry.frames, self.frames)
        return {"start": start, "info": json.loads(sample.read("json"))}
