"""The sides of the loader benchmark: each reads a window and its patches, and can do the bare
minimum of it, which no loader of the same files could beat. The windows are the first ones of the
project's own sequence.

Shapes: B one clip, T frames, H rows, W columns, N patches, 3 colours; P stands for pt, ph, pw.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from coordtok.benchmarks.plain_loader import cut_patches, decode_only, read_window
from coordtok.data.loader import TrainLoader
from coordtok.data.member import StoredSample
from coordtok.data.order import sample_rng
from coordtok.data.sample import SampleId, read_info
from coordtok.data.sequence import LoaderState, SampleSequence
from coordtok.data.shards import OpenedShards
from coordtok.data.video_reader import VideoWindows
from coordtok.geometry.draw import draw_points
from coordtok.geometry.grid import PatchGrid, Size3
from coordtok.geometry.patches import gather
from coordtok.geometry.pixels import from_planes

SHUFFLE_BLOCK = 16


@dataclass(frozen=True)
class ClipSettings:
    """What is read: by default clips and patches of docs/method.md, "Main configuration"."""

    clips: int = 80
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


class Output(NamedTuple):
    """Both uint8."""

    video_THW3: np.ndarray
    patches_NP3: np.ndarray


class Side(Protocol):
    patches_are_read: bool
    """Whether it cuts out the patches too; where a GPU does that, they are only compared."""

    def read(self, window: Window) -> Any:
        """The window; sides that are a sequence must be asked in its order."""

    def output(self, found: Any, window: Window) -> Output:
        """What was read, and its patches."""

    def bare(self, window: Window) -> Callable[[], None]:
        """An action that decodes the window from its file, or from the memory where that is
        small, or copies its raw frames into place, and no more: nothing is checked."""


class FullSizeVideo:
    """The straightforward loader."""

    patches_are_read = True

    def __init__(self, settings: ClipSettings) -> None:
        self._settings = settings

    def read(self, window: Window) -> np.ndarray:
        return read_window(window.video, window.start_in_video, self._settings.size)

    def output(self, found: np.ndarray, window: Window) -> Output:
        index_N3 = self._settings.draw(window.id)
        return Output(found, cut_patches(found, index_N3, self._settings.patch))

    def bare(self, window: Window) -> Callable[[], None]:
        return lambda: _decode(window.video, window.start_in_video, self._settings)


class Shards:
    """The project's path: a `TrainLoader` that reads in this process, and `gather`."""

    patches_are_read = True

    def __init__(self, opened: OpenedShards, settings: ClipSettings) -> None:
        self._opened, self._settings = opened, settings
        self._places = {
            sample.key: (shard, number)
            for shard, entry in enumerate(opened.index.shards)
            for number, sample in enumerate(entry.samples)
        }
        self._buffer = np.empty((*settings.size, 3), np.uint8)
        loader = TrainLoader(
            [opened],
            self._windows(),
            seed=settings.seed,
            rank=0,
            world_size=1,
            micro_batch=1,
            workers=0,
            prefetch=1,
            shuffle_block=SHUFFLE_BLOCK,
        )
        self._batches = iter(loader)

    def _windows(self) -> VideoWindows:
        return VideoWindows(*self._settings.size)

    def read(self, window: Window) -> torch.Tensor:
        return self._clip(window, "video")

    def output(self, found: torch.Tensor, window: Window) -> Output:
        return self._patches(found, window)

    def _clip(self, window: Window, name: str) -> torch.Tensor:
        batch, _ = next(self._batches)
        assert batch.ids == (window.id,), f"{batch.ids} came where {window.id} is next"
        return batch.data[name]

    def _patches(self, video_BTHW3: torch.Tensor, window: Window) -> Output:
        index_BN3 = torch.from_numpy(self._settings.draw(window.id))[None]
        patches_BNP3 = gather(video_BTHW3, index_BN3, self._settings.patch)
        return Output(video_BTHW3[0].numpy(), patches_BNP3[0].numpy())

    def bare(self, window: Window) -> Callable[[], None]:
        shard, number = self._places[window.id.key]
        sample = self._opened.reader.sample(shard, number)
        if "npy" not in sample.entry.files:
            stored = sample.read("mp4")
            return lambda: _decode(stored, window.start_in_sample, self._settings)
        at, size = sample.entry.files["npy"]
        left = sample.entry.frames - window.start_in_sample
        offset = at + size - left * self._buffer[0].nbytes
        path = Path(self._opened.location) / self._opened.index.shards[shard].name
        return lambda: _read_into(path, offset, self._buffer.reshape(-1).data)


class StoredPlanes(Shards):
    """Its planes as they are stored, as a GPU takes them, which cuts out patches itself."""

    patches_are_read = False

    def _windows(self) -> VideoWindows:
        return super()._windows().as_stored([self._opened.index])

    def read(self, window: Window) -> torch.Tensor:
        return self._clip(window, str(self._opened.index.codec["pixel_format"]))

    def output(self, found: torch.Tensor, window: Window) -> Output:
        _, height, width = self._settings.size
        return self._patches(from_planes(found.flatten(2), height, width), window)


class _Places(VideoWindows):
    """Gives where a window lies instead of reading it."""

    def __call__(self, sample: StoredSample, start: int) -> Mapping[str, Any]:
        return {"start": start, "info": read_info(sample)}


def _read_into(path: Path, offset: int, buffer: memoryview) -> None:
    with open(path, "rb", buffering=0) as file:
        assert os.preadv(file.fileno(), [buffer], offset) == buffer.nbytes


def _decode(video: Path | bytes, start: int, settings: ClipSettings) -> None:
    decoded = decode_only(video, start, settings.size[0])
    assert decoded == settings.size[0], f"{decoded} frames of the window decode"
