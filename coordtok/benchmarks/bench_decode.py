"""What the grouping of patches into decoder passes does to a trained tokenizer: PSNR, and the time
that a whole clip and one frame of it take.

Shapes: T frames, H rows, W columns, 3 colours.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, get_args

import torch

from coordtok.benchmarks.table import Report, table
from coordtok.data.clip_reader import ClipBatch, ClipReader
from coordtok.data.clips import one_per_sample
from coordtok.data.shards import open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import ConfigError, DataError
from coordtok.evaluation.metrics import psnr
from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.groups import Grouping, patch_groups
from coordtok.geometry.pixels import from_uint8
from coordtok.geometry.planes import Planes
from coordtok.models.tokenizer import CoordTok
from coordtok.progress import ProgressBar


class Setting(NamedTuple):
    """A way to decode, and the share of all patches that one frame needs, mean over the frames."""

    grouping: Grouping
    points_per_pass: int
    share_of_a_frame: float


@dataclass
class Timing:
    """Of one setting, a value for each clip."""

    psnr: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    frame_seconds: list[float] = field(default_factory=list)


def measure_decoding(
    model: CoordTok, shards: str, clips: int, sizes: Sequence[int] | None, seed: int
) -> Report:
    """Decode the first `clips` samples of `shards` in every grouping, in passes of `sizes` patches.

    sizes: by default one frame, 4, 16 ... frames, what the model was trained with, and all.

    Raises:
        ConfigError: a size below 1.
        DataError: no clip to read.
    """
    settings = distinct_settings(model, sizes)
    timings = {setting: Timing() for setting in settings}
    count = 0
    for count, batch in enumerate(first_clips(shards, model, clips, seed), 1):
        target_THW3, planes = _encoded(model, batch)
        wanted = int(torch.randint(len(target_THW3), (), generator=_generator(seed, count)))
        for setting in settings:
            _measure(model, planes, target_THW3, wanted, setting, timings[setting])
    rows = [{**setting._asdict(), **_figures(timings[setting])} for setting in settings]
    return _report(model, shards, count, rows)


def distinct_settings(model: CoordTok, sizes: Sequence[int] | None = None) -> list[Setting]:
    """Every grouping at every size, but one of those that cut a clip into the same groups."""
    grid = model.decoder.grid
    found: dict[tuple[tuple[int, ...], ...], Setting] = {}
    for size in sorted(set(sizes or [*_frames_a_pass(grid), model.points_per_pass])):
        for grouping in get_args(Grouping):
            groups = patch_groups(grid, size, grouping)
            key = tuple(sorted(tuple(grid.ravel(group).tolist()) for group in groups))
            found.setdefault(key, Setting(grouping, size, _share_of_a_frame(grid, groups)))
    return list(found.values())


def first_clips(
    shards: str, model: CoordTok, clips: int, seed: int, frames: int | None = None
) -> Iterator[ClipBatch]:
    """Up to `clips` windows of `frames` frames, on a progress bar and in the index's order, one of
    each readable sample that is so long; by default of the model's length, samples of any."""
    if clips < 1:
        raise ConfigError(f"--clips {clips}: it must be at least 1")
    dataset = open_shards(shards)
    read = VideoWindows(frames or model.config.frames, model.config.height, model.config.width)
    wanted = frames or 1
    chosen = one_per_sample(dataset.index, read.frames, seed)
    long_enough = [clip for clip in chosen if clip.frames >= wanted]
    found = (batch for batch in ClipReader(dataset, long_enough, read, batch=1) if batch.numbers)
    most = min(clips, len(long_enough))
    bar = ProgressBar(islice(found, most), unit="clip", total=most)
    yield from bar
    if not bar.n:
        raise DataError(
            f"{shards} has no readable sample of {wanted} frames; build shards with more "
            "--clips-per-segment"
        )


def timed(model: CoordTok, decode: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    """Seconds that a decode takes, the device's work included, and what it gives."""
    began = time.perf_counter()
    pixels = decode()
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter() - began, pixels


def _frames_a_pass(grid: PatchGrid) -> Iterator[int]:
    size = grid.per_slab
    while size < grid.count:
        yield size
        size *= 4
    yield grid.count


def _share_of_a_frame(grid: PatchGrid, groups: Sequence[torch.Tensor]) -> float:
    decoded = sum(len(group) * len(group[:, 0].unique()) for group in groups)
    return decoded / grid.shape[0] / grid.count


@torch.no_grad()
def _encoded(model: CoordTok, batch: ClipBatch) -> tuple[torch.Tensor, Planes]:
    """The clip's real frames (T, H, W, 3) and its planes."""
    video_BTHW3, frames_B = batch.data["video"], batch.data["num_frames"]
    return from_uint8(video_BTHW3[0, : int(frames_B)]), model.encode(video_BTHW3, frames_B)


def _generator(seed: int, clip: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 * seed + clip)


def _measure(
    model: CoordTok,
    planes: Planes,
    target_THW3: torch.Tensor,
    wanted: int,
    setting: Setting,
    timing: Timing,
) -> None:
    def decode(frames: Sequence[int] | None) -> torch.Tensor:
        return model.decode(planes, frames, setting.points_per_pass, grouping=setting.grouping)

    if not timing.seconds:
        decode([wanted])  # the first of its size is slower
    seconds, pixels = timed(model, lambda: decode(None))
    frame_seconds, _ = timed(model, lambda: decode([wanted]))
    timing.seconds.append(seconds)
    timing.frame_seconds.append(frame_seconds)
    timing.psnr.append(psnr(pixels[0, : len(target_THW3)].cpu(), target_THW3))


def _figures(timing: Timing) -> dict[str, float]:
    return {
        "psnr": statistics.fmean(timing.psnr),
        "ms_per_clip": 1000 * statistics.median(timing.seconds),
        "ms_per_frame": 1000 * statistics.median(timing.frame_seconds),
    }


def _report(model: CoordTok, shards: str, clips: int, rows: list[dict[str, Any]]) -> Report:
    heading = ["grouping", "patches a pass", "PSNR, dB", "whole clip, ms", "one frame, ms"]
    cells = [[*heading, "patches for a frame"]]
    for row in rows:
        milliseconds = [f"{row[key]:.1f}" for key in ("ms_per_clip", "ms_per_frame")]
        share = f"{100 * row['share_of_a_frame']:.1f} %"
        size = str(row["points_per_pass"])
        cells.append([row["grouping"], size, f"{row['psnr']:.3f}", *milliseconds, share])
    grid = model.decoder.grid
    text = [
        f"{clips} clips of {shards}; {grid.count} patches in a clip, {grid.per_slab} in a frame, "
        f"trained with {model.points_per_pass} a step; PSNR is the mean over clips, times are "
        "medians:",
        table(cells),
    ]
    settings = {"shards": shards, "clips": clips, "trained_points": model.points_per_pass}
    return Report({"settings": settings, "decode": rows}, "\n".join(text))
