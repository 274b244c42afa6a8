"""How fast clips come from shards, against a straightforward loader of full-size videos.

All sides read the same random windows, in turns, in one process on one core, and give the same
outputs: the clip as uint8 (T, H, W, 3) and its target patches (N, pt, ph, pw, 3). Drawing, opening,
checking, decoding and batching are all in the time. Beside what it takes to read the clip is its
floor on the same windows, the bare decoding or, of raw frames, the reading into place, and every
clip is compared with the frames of its source video, resized exactly. Stored planes, read as a GPU
takes them, have no patches and are compared with the clip that they become.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from math import log10
from pathlib import Path
from typing import Any

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
from coordtok.data.shards import open_shards
from coordtok.errors import DataError
from coordtok.progress import ProgressBar

BASELINE = "full-size video"
PLANES = "h264, as planes"
LEAST_PSNR = 20.0
"""To the exact clip, dB: what is further from it is another clip."""
_WARM_UP = 2


@dataclass
class Timing:
    """Of one side, a value for each window."""

    seconds: list[float] = field(default_factory=list)
    """Of the clip and its patches."""
    clip_seconds: list[float] = field(default_factory=list)
    bare_seconds: list[float] = field(default_factory=list)
    squared_errors: list[float] = field(default_factory=list)
    """Mean over a clip of (pixel - exact pixel)^2."""

    def add(self, seconds: float, clip_seconds: float, bare_seconds: float) -> None:
        self.seconds.append(seconds)
        self.clip_seconds.append(clip_seconds)
        self.bare_seconds.append(bare_seconds)


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
    sides: dict[str, Side] = {BASELINE: FullSizeVideo(settings)}
    for codec, each in opened.items():
        if codec == "h264":
            sides[PLANES] = StoredPlanes(each, settings)
        sides[codec] = Shards(each, settings)
    some = next(iter(opened.values()))
    windows = first_windows(some, videos, settings, settings.clips + _WARM_UP)
    timings = {name: Timing() for name in sides}
    with _one_core():
        for number, window in enumerate(
            ProgressBar(windows, desc="reading windows", unit="window")
        ):
            _measure_window(number, window, sides, timings, settings)
    for name, timing in timings.items():
        _check_agreement(name, statistics.fmean(timing.squared_errors))
    return {name: _figures(timing, timings[BASELINE]) for name, timing in timings.items()}


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


def _measure_window(
    number: int,
    window: Window,
    sides: Mapping[str, Side],
    timings: Mapping[str, Timing],
    settings: ClipSettings,
) -> None:
    """Every side once, each time beginning with another one."""
    names = list(sides)
    first = number % len(names)
    outputs: dict[str, Output] = {}
    for name in names[first:] + names[:first]:
        *seconds, outputs[name] = _read(sides[name], window, bare_first=number % 2 == 1)
        if number >= _WARM_UP:
            timings[name].add(*seconds)
    exact_THW3 = exact_window(window.video, window.start_in_video, settings.size)
    for name in names:
        _check_form(name, outputs[name], settings.draw(window.id), settings)
        error = outputs[name].video_THW3.astype(np.int32) - exact_THW3
        timings[name].squared_errors.append(float(np.mean(np.square(error))))


def _read(side: Side, window: Window, bare_first: bool) -> tuple[float, float, float, Output]:
    """Seconds of the clip with its patches, of the clip and of the bare minimum; and the output.

    bare_first: whichever is second finds the file's bytes in the core's cache, so they take turns.
    """
    bare = side.bare(window)
    bare_seconds = _timed(bare)[0] if bare_first else 0.0
    clip_seconds, found = _timed(lambda: side.read(window))
    if not bare_first:
        bare_seconds, _ = _timed(bare)
    more_seconds, output = _timed(lambda: side.output(found, window))
    return (
        clip_seconds + more_seconds * side.patches_are_read,
        clip_seconds,
        bare_seconds,
        output,
    )


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


def _check_agreement(name: str, squared_error: float) -> None:
    psnr = _psnr(squared_error)
    if psnr is not None and (name == "raw" or psnr < LEAST_PSNR):
        wanted = "the same pixels" if name == "raw" else f"at least {LEAST_PSNR:.0f} dB"
        raise DataError(f"{name} is {psnr:.1f} dB from its source, not {wanted}; report this")


def _psnr(squared_error: float) -> float | None:
    """In dB, of 8-bit pixels; None where nothing differs."""
    return 10 * log10(255**2 / squared_error) if squared_error else None


def _figures(timing: Timing, baseline: Timing) -> dict[str, Any]:
    milliseconds = 1000 * statistics.median(timing.seconds)
    ratios = [slow / fast for slow, fast in zip(baseline.seconds, timing.seconds)]
    over_floor = [clip / bare for clip, bare in zip(timing.clip_seconds, timing.bare_seconds)]
    return {
        "ms_per_clip": milliseconds,
        "clips_per_s": 1000 / milliseconds,
        "ratio_to_baseline": statistics.median(ratios),
        "clip_alone_ms": 1000 * statistics.median(timing.clip_seconds),
        "bare_ms_per_clip": 1000 * statistics.median(timing.bare_seconds),
        "ratio_to_floor": statistics.median(over_floor),
        "psnr_to_source_db": _psnr(statistics.fmean(timing.squared_errors)),
        "ms_of_each_clip": [round(1000 * seconds, 3) for seconds in timing.seconds],
    }
