"""How fast clips come from shards, against a straightforward loader of full-size videos.

All sides read the same random windows, some at a time in turns, in one process on one core, and
give the same outputs: the clip as uint8 (T, H, W, 3) and its target patches (N, pt, ph, pw, 3).
Drawing, opening, checking, decoding and batching are all in the time. Beside what it takes to read
the clip is its floor on the same windows, the bare decoding or, of raw frames, the reading into
place. Stored planes, read as a GPU takes them, have no patches. Before anything is timed every clip
is compared with the frames of its source video, resized exactly, planes as the clip they become.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import log10
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from coordtok.benchmarks.loader_sides import (
    ClipSettings,
    FullSizeVideo,
    Output,
    Shards,
    Side,
    StoredPlanes,
    Window,
    first_windows,
)
from coordtok.benchmarks.plain_loader import cut_patches, exact_window
from coordtok.benchmarks.table import Report, table
from coordtok.data.shards import OpenedShards, open_shards
from coordtok.errors import DataError
from coordtok.progress import ProgressBar

BASELINE = "full-size video"
PLANES = "h264, as planes"
LEAST_PSNR = 20.0
"""To the exact clip, dB: what is further from it is another clip."""
_TURN = 8
"""Windows that a side reads before it is another's turn. As in training most of a clip's bytes then
come from memory; of a window that has just been read they would come from the core's cache."""


class Seconds(NamedTuple):
    """Of one window."""

    clip: float
    with_patches: float
    bare: float


@dataclass
class Timing:
    """Of one side."""

    turns: list[list[Seconds]] = field(default_factory=list)

    @property
    def windows(self) -> list[Seconds]:
        return [window for turn in self.turns for window in turn]


def measure_loader(
    videos: Path, shards: Mapping[str, str], settings: ClipSettings
) -> dict[str, dict[str, Any]]:
    """Figures of the baseline and of each of `shards` (codec to folder), by name.

    `videos` is the folder that all the shards were built from, with the same options but for the
    codec, so that all of them serve the same windows in the same order.

    Raises:
        DataError: the sides do not give the same output.
    """
    torch.set_num_threads(1)
    opened = {codec: open_shards(folder) for codec, folder in shards.items()}
    some = next(iter(opened.values()))
    windows = first_windows(some, videos, settings, _TURN + settings.clips)
    psnrs = _compare(windows, _sides(opened, settings), settings)
    sides = _sides(opened, settings)
    timings = {name: Timing() for name in sides}
    turns = [windows[first : first + _TURN] for first in range(0, len(windows), _TURN)]
    with _one_core():
        for number, turn in enumerate(ProgressBar(turns, desc="timing windows", unit="turn")):
            for name, timed in _take_turn(number, turn, sides).items():
                if number:  # the first one warms up
                    timings[name].turns.append(timed)
    baseline = timings[BASELINE]
    return {name: _figures(each, baseline, psnrs[name]) for name, each in timings.items()}


def _sides(opened: Mapping[str, OpenedShards], settings: ClipSettings) -> dict[str, Side]:
    sides: dict[str, Side] = {BASELINE: FullSizeVideo(settings)}
    for codec, each in opened.items():
        if codec == "h264":
            sides[PLANES] = StoredPlanes(each, settings)
        sides[codec] = Shards(each, settings)
    return sides


def loader_report(
    settings: ClipSettings, sides: Mapping[str, Mapping[str, Any]], resume: Mapping[str, Any]
) -> Report:
    """The figures of `measure_loader` and `measure_resume` for people and for machines."""
    heading = ["read from", "ms", "clips/s", "times faster", "clip alone, ms", "floor, ms"]
    rows = [[*heading, "times the floor", "to the source"]]
    for name, each in sides.items():
        psnr = each["psnr_to_source_db"]
        cells = [f"{each[key]:.1f}" for key in ("ms_per_clip", "clips_per_s", "ratio_to_baseline")]
        pixels = "exact" if psnr is None else f"{psnr:.1f} dB"
        floor = [f"{each[key]:.1f}" for key in ("clip_alone_ms", "bare_ms_per_clip")]
        rows.append([name, *cells, *floor, f"{each['ratio_to_floor']:.2f}", pixels])
    frames, height, width = settings.size
    text = [
        f"{settings.clips} random clips of {frames} frames of {height} x {width} with "
        f"{settings.points} patches each, on one core, medians; the floor is the bare decode of "
        "the same clips alone, or the copy into place:",
        table(rows),
        f"resumed at clip {resume['position']:,} of an epoch of {resume['samples']:,} in "
        f"{resume['seconds']:.2f} s",
    ]
    figures = {"settings": asdict(settings), "loader": sides, "resume": resume}
    return Report(figures, "\n".join(text))


def _compare(
    windows: Sequence[Window], sides: Mapping[str, Side], settings: ClipSettings
) -> dict[str, float | None]:
    """PSNR of every side's clips to the exact ones, dB; None where all are exact."""
    errors: dict[str, list[float]] = {name: [] for name in sides}
    for window in ProgressBar(windows, desc="comparing windows", unit="window"):
        exact_THW3 = exact_window(window.video, window.start_in_video, settings.size)
        for name, side in sides.items():
            found = side.output(side.read(window), window)
            _check_form(name, found, settings.draw(window.id), settings)
            error = found.video_THW3.astype(np.int32) - exact_THW3
            errors[name].append(float(np.mean(np.square(error))))
    psnrs = {name: _psnr(statistics.fmean(each)) for name, each in errors.items()}
    for name, psnr in psnrs.items():
        _check_agreement(name, psnr)
    return psnrs


def _take_turn(
    number: int, windows: Sequence[Window], sides: Mapping[str, Side]
) -> dict[str, list[Seconds]]:
    """The windows read by every side, each time beginning with another one, and bare before or
    after it."""
    names = list(sides)
    first = number % len(names)
    timed = {}
    for name in names[first:] + names[:first]:
        side = sides[name]
        bare = [side.bare(window) for window in windows]
        if number % 2:
            bare_seconds = [_timed(action)[0] for action in bare]
        clip_seconds = [_read(side, window) for window in windows]
        if not number % 2:
            bare_seconds = [_timed(action)[0] for action in bare]
        timed[name] = [Seconds(*clip, bare) for clip, bare in zip(clip_seconds, bare_seconds)]
    return timed


def _read(side: Side, window: Window) -> tuple[float, float]:
    """Seconds of the clip, and of the clip with its patches."""
    seconds, found = _timed(lambda: side.read(window))
    if not side.patches_are_read:
        return seconds, seconds
    return seconds, seconds + _timed(lambda: side.output(found, window))[0]


def _timed(action: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process to one core, so that libraries that count cores start no threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _check_form(name: str, found: Output, index_N3: np.ndarray, settings: ClipSettings) -> None:
    """Shapes and types are as asked for, and the patches are those of the clip."""
    shapes = (*settings.size, 3), (settings.points, *settings.patch, 3)
    for array, shape in zip(found, shapes):
        if (array.shape, array.dtype) != (shape, np.uint8):
            raise DataError(
                f"{name} gives {array.dtype} {array.shape}, not uint8 {shape}; report this"
            )
    own_patches = cut_patches(found.video_THW3, index_N3, settings.patch)
    if not np.array_equal(own_patches, found.patches_NP3):
        raise DataError(f"{name} gives patches that are not those of its clip; report this")


def _check_agreement(name: str, psnr: float | None) -> None:
    if psnr is not None and (name == "raw" or psnr < LEAST_PSNR):
        wanted = "the same pixels" if name == "raw" else f"at least {LEAST_PSNR:.0f} dB"
        raise DataError(f"{name} is {psnr:.1f} dB from its source, not {wanted}; report this")


def _psnr(squared_error: float) -> float | None:
    """In dB, of 8-bit pixels; None where nothing differs."""
    return 10 * log10(255**2 / squared_error) if squared_error else None


def _figures(timing: Timing, baseline: Timing, psnr: float | None) -> dict[str, Any]:
    windows = timing.windows
    milliseconds = 1000 * statistics.median(each.with_patches for each in windows)
    ratios = [
        slow.with_patches / fast.with_patches for slow, fast in zip(baseline.windows, windows)
    ]
    over_floor = [
        sum(each.clip for each in turn) / sum(each.bare for each in turn) for turn in timing.turns
    ]
    return {
        "ms_per_clip": milliseconds,
        "clips_per_s": 1000 / milliseconds,
        "ratio_to_baseline": statistics.median(ratios),
        "clip_alone_ms": 1000 * statistics.median(each.clip for each in windows),
        "bare_ms_per_clip": 1000 * statistics.median(each.bare for each in windows),
        "ratio_to_floor": statistics.median(over_floor),
        "psnr_to_source_db": psnr,
        "ms_of_each_clip": [round(1000 * each.with_patches, 3) for each in windows],
    }
