"""How resident memory goes while clips are read as training reads them.

The pages that a process shares with another count half in each (PSS of Linux), so that the memory
through which clips travel is counted once.
"""

import re
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch.multiprocessing

from coordtok.benchmarks.table import Report, table
from coordtok.data.loader import TrainLoader
from coordtok.data.shards import open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import ConfigError
from coordtok.progress import ProgressBar

POINTS = 20
MICRO_BATCH = 4
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


def measure_memory(shards: str, clips: int, frames: int, workers: int, seed: int) -> Report:
    """Read `clips` clips of `frames` frames, `MICRO_BATCH` at a time.

    Raises:
        ConfigError: fewer clips than points, or no Linux.
        DataError: the shards cannot be read.
    """
    batches = clips // MICRO_BATCH
    if batches < POINTS or workers < 0:
        raise ConfigError(
            f"--clips {clips} --workers {workers}: read at least {POINTS * MICRO_BATCH} clips by 0 "
            "processes or more"
        )
    opened = open_shards(shards)
    stored = opened.index.video
    loader = TrainLoader(
        [opened],
        VideoWindows(frames, stored.height, stored.width),
        seed=seed,
        rank=0,
        world_size=1,
        micro_batch=MICRO_BATCH,
        workers=workers,
        prefetch=4,
        shuffle_block=16,
    )
    reads = iter(loader)
    began, held = time.perf_counter(), []
    with ProgressBar(total=clips, unit="clip", desc="memory") as bar:
        for point in range(1, POINTS + 1):
            for _ in islice(reads, point * batches // POINTS - (point - 1) * batches // POINTS):
                bar.update(MICRO_BATCH)
            held.append(resident_bytes())
    seconds = time.perf_counter() - began
    reads.close()
    return _report(clips, (frames, stored.height, stored.width), workers, held, seconds)


def resident_bytes() -> int:
    """Of this process and those that it started."""
    own = [Path("/proc/self/smaps_rollup")]
    own += [
        Path(f"/proc/{each.pid}/smaps_rollup") for each in torch.multiprocessing.active_children()
    ]
    try:
        return sum(1024 * int(_PSS.findall(path.read_text())[0]) for path in own)
    except OSError:
        raise ConfigError("this measures memory where Linux states it, in /proc") from None


def _report(
    clips: int, size: tuple[int, int, int], workers: int, held: list[int], seconds: float
) -> Report:
    tenth = POINTS // 10 - 1
    growth = held[-1] - held[tenth]
    step = max(1, POINTS // 5)
    shown = [tenth, *range(step - 1, POINTS, step)]
    rows = [["clips read", "MiB held"]]
    rows += [[f"{clips * (at + 1) // POINTS:,}", f"{held[at] / 2**20:.1f}"] for at in shown]
    frames, height, width = size
    text = [
        f"clips of {frames} frames of {height} x {width}, read by {workers} loader processes, "
        f"{MICRO_BATCH} at a time, {clips / seconds:.0f} a second:",
        table(rows),
        f"{growth / 2**20:+.1f} MiB from the first tenth to the end (its floor is 0), at most "
        f"{max(held[tenth:]) / 2**20:.1f} MiB",
    ]
    figures: dict[str, Any] = {
        "settings": {"clips": clips, "size": size, "workers": workers, "micro_batch": MICRO_BATCH},
        "clips_per_s": clips / seconds,
        "held_bytes": held,
        "growth_bytes": growth,
        "floor_growth_bytes": 0,
    }
    return Report({"memory": figures}, "\n".join(text))
