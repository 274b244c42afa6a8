"""How far generated videos are from real ones: FVD by the paper's protocol.

As many generated mp4 files as real clips, both cut to their first frames; all ranks take part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coordtok import distributed
from coordtok.data.clip_reader import ClipBatch, ClipReader
from coordtok.data.clips import Clip, ClipChoice, to_csv
from coordtok.data.sample import SampleId
from coordtok.data.shards import OpenedShards, open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import ConfigError, DataError
from coordtok.evaluation.clip_features import FeatureSets, FeatureTaker, distances
from coordtok.evaluation.features import FeatureChoice
from coordtok.evaluation.over_ranks import each_batch, merge_features
from coordtok.evaluation.report import definitions, describe_clips, describe_shards
from coordtok.evaluation.results import CLIPS, write_report
from coordtok.pretrained.read import usable_device
from coordtok.progress import ProgressBar
from coordtok.storage.files import check_new, read_whole, whole_folder
from coordtok.video.codec import (
    UnreadableVideo,
)
from coordtok.video.decoding import decode_frames

SUFFIX = ".mp4"
MOST_VIDEO_BYTES = 1 << 30  # of a generated video


@dataclass(frozen=True)
class GenerationRequest:
    """What the command line asks for."""

    generated: Path
    shards: str
    output: Path
    features: FeatureChoice
    clips: ClipChoice = field(default_factory=ClipChoice)
    batch: int = 1
    device: str = "cpu"
    workers: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch is {self.batch}; take at least 1 at a time")


class VideoReader:
    """This rank's batches of video files, as `ClipReader` has them of stored clips."""

    def __init__(
        self, paths: Sequence[Path], size: tuple[int, int, int], batch: int, rank: int, ranks: int
    ) -> None:
        """size: (T, H, W) of what is read: the first T frames of each file, which must be H x W."""
        self._paths, self._size, self._batch = paths, size, batch
        per_rank = -(-len(paths) // (ranks * batch))
        self._own = range(rank * batch, per_rank * ranks * batch, ranks * batch)

    def __len__(self) -> int:
        """Batches of each rank."""
        return len(self._own)

    def __iter__(self) -> Iterator[ClipBatch]:
        """Raises DataError for a file that cannot be read, is too short or of another size."""
        for first in self._own:
            paths = self._paths[first : first + self._batch]
            video = np.zeros((self._batch, *self._size, 3), np.uint8)
            for place, path in enumerate(paths):
                video[place] = self._read(path)
            frames_B = torch.full((self._batch,), self._size[0])
            numbers = {place: first + place for place in range(len(paths))}
            ids = tuple(SampleId(0, 0, path.name) for path in paths)
            data = {"video": torch.from_numpy(video), "num_frames": frames_B}
            yield ClipBatch(data, ids, (), numbers, {})

    def _read(self, path: Path) -> np.ndarray:
        frames, *size = self._size
        try:
            return decode_frames(read_whole(path, MOST_VIDEO_BYTES), 0, frames, (size[0], size[1]))
        except (UnreadableVideo, OSError, ValueError) as error:
            raise DataError(
                f"{path}: {error}; generate it again, or compare with shards of its size and with "
                "fewer --fvd-frames"
            ) from None


@dataclass(frozen=True)
class _Prepared:
    dataset: OpenedShards
    clips: list[Clip]
    paths: list[Path]
    taker: FeatureTaker
    readers: tuple[VideoReader, ClipReader]
    """First the generated videos: one of no use is found before the real clips are read."""


def evaluate_generated(request: GenerationRequest) -> dict[str, Any]:
    """Compare generated videos with real clips over all ranks; rank 0 writes the new folder.

    Returns its report. Without a number in `clips`, one window of every sample that is long
    enough is compared with all generated videos.

    Raises:
        UserError: on all ranks: videos, shards, network or the folder cannot be used.
    """
    distributed.run_on_main(lambda: check_new(request.output))
    prepared = distributed.together(lambda: _prepare(request))
    generated, real = (_features(request, prepared, each) for each in prepared.readers)
    skipped = len(prepared.clips) - max(map(len, real.values()))
    metrics = {"fvd": distances(prepared.taker.network, real, generated)}
    return distributed.run_on_main(lambda: _write(request, prepared, metrics, skipped))


def find_videos(folder: Path, number: int | None) -> list[Path]:
    """The first `number` videos of `folder` by name; all of them by default.

    Raises:
        DataError: there is no such folder, or it holds fewer.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    except OSError as error:
        raise DataError(f"generated videos: {folder} cannot be read ({error.strerror})") from None
    if not paths or (number is not None and len(paths) < number):
        raise DataError(
            f"{folder} holds {len(paths)} {SUFFIX} files, {number or 'at least 1'} are needed; "
            "generate more (scripts/sample.py), or ask for fewer --clips"
        )
    return paths[:number]


def _prepare(request: GenerationRequest) -> _Prepared:
    paths = find_videos(request.generated, request.clips.number)
    dataset = open_shards(request.shards)
    video = dataset.index.video
    size = video.frames, video.height, video.width
    taker = FeatureTaker.load(request.features, size, usable_device(request.device))
    clips = request.clips.choose(dataset.index, video.frames)
    clips = [clip for clip in clips if clip.frames >= max(taker.lengths)]
    taker.check_clips([clip.frames for clip in clips], "real clips")
    taker.check_clips([video.frames] * len(paths), "generated videos")
    rank, ranks = distributed.rank(), distributed.world_size()
    compared = max(taker.lengths), video.height, video.width
    generated = VideoReader(paths, compared, request.batch, rank, ranks)
    real = ClipReader(
        dataset,
        clips,
        VideoWindows(*size),
        batch=request.batch,
        rank=rank,
        world_size=ranks,
        workers=request.workers,
    )
    return _Prepared(dataset, clips, paths, taker, (generated, real))


def _features(
    request: GenerationRequest, prepared: _Prepared, reader: VideoReader | ClipReader
) -> FeatureSets:
    """Of all ranks' videos."""
    is_generated = isinstance(reader, VideoReader)
    total, what = len(prepared.clips), "real"
    if is_generated:
        total, what = len(prepared.paths), "generated"
    shown = request.progress and distributed.is_main()
    own: FeatureSets = {}
    with ProgressBar(total=total, desc=what, unit="clip", disable=not shown) as bar:
        each_batch(reader, partial(prepared.taker.add, own), bar)
    return merge_features(own)


def _write(
    request: GenerationRequest, prepared: _Prepared, metrics: dict[str, Any], skipped: int
) -> dict[str, Any]:
    clip_list = to_csv(prepared.clips, prepared.dataset.index)
    scored = len(prepared.clips) - skipped
    report = {
        "metrics": metrics,
        "generated": {"path": str(request.generated), "videos": len(prepared.paths)},
        "clips": describe_clips(request.clips, scored, skipped, clip_list),
        "data": describe_shards(prepared.dataset),
        "features": prepared.taker.network.settings,
        "definitions": definitions(metrics),
    }
    with whole_folder(request.output) as folder:
        write_report(folder, report)
        (folder / CLIPS).write_text(clip_list, encoding="utf-8")
    return report
