"""How fast a GPU trains a preset in full, what the host waits for, and what its time goes to."""

import gc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from coordtok import distributed
from coordtok.benchmarks.bench_train import (
    figures_of,
    measure_steps,
    on_noise,
    shown_steps,
    steps_needed,
    trainer_to_measure,
)
from coordtok.benchmarks.communication import covered
from coordtok.config.schema import RunConfig
from coordtok.scaling.memory import Zero, rank_memory
from coordtok.train.engine import load_sharding
from tests.gpu.record import Record
from tests.gpu.sizes import MODES, Sizes

LOOKED_AT = 2
"""Steps whose waits are counted, and as many that are traced."""
MOST_WAITS = 7
"""Of a step: DeepSpeed's of the gradient's norm (tests/train/test_contract.py: four at most in
bf16), the loop's of what all ranks found, and two to spare; 6.5 were seen on an H100."""
SHOWN_KERNELS = 30


def full(preset: str, mode: str, stage: str) -> Callable[[Path, Record, Sizes], None]:
    """Rates and memory of the whole model; of compiled runs under ZeRO-1 waits and a trace too."""

    def run_part(work: Path, record: Record, sizes: Sizes) -> None:
        distributed.setup()
        name = {"preset": preset, "mode": mode, "stage": stage}
        for share in (1, 2):
            run = sizes.full(preset, share, *MODES[mode])
            try:
                _measure(run, work, record, sizes, name)
                return
            except torch.OutOfMemoryError as error:
                record.figures("out of memory", **name, error=str(error)[:600])
            gc.collect()
            torch.cuda.empty_cache()
        record.check(f"{name} fits", False)

    return run_part


def _measure(
    run: RunConfig, work: Path, record: Record, sizes: Sizes, name: dict[str, str]
) -> None:
    sharding = load_sharding(name["stage"], run, 1)
    steps = 2 if sizes.rehearse else 8
    with TemporaryDirectory(dir=work) as folder:
        run = on_noise(run, Path(folder))
        needed = steps_needed(steps) + 2 * LOOKED_AT
        with trainer_to_measure(run, sharding, Path(folder), needed) as trainer:
            updates = shown_steps(trainer)
            found = figures_of(run, sharding, measure_steps(trainer, updates, steps))
            planned = rank_memory(run, Zero.load(name["stage"]), 1, run.train.global_batch)
            batch = run.train.global_batch
            record.figures("full", **name, batch=batch, planned_bytes=planned, **found)
            if (name["mode"], name["stage"]) == ("compiled", "zero1"):
                _waits(updates, record, name["preset"])
                _trace(updates, record, name["preset"])


def _waits(updates: Iterator[int], record: Record, preset: str) -> None:
    """Where the host waits for the device."""
    if not torch.cuda.is_available():
        next(updates), next(updates)
        record.figures("waits", preset=preset, waits="not run")
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in islice(updates, LOOKED_AT):
                pass
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(
        f"{Path(each.filename).name}:{each.lineno}"
        for each in caught
        if "synchroniz" in str(each.message)
    )
    waits = sum(places.values()) / LOOKED_AT
    record.check(f"{preset}: waits of a step", waits <= MOST_WAITS, found=waits, places=places)


def _trace(updates: Iterator[int], record: Record, preset: str) -> None:
    """The kernels that take the longest, and how much of the time any runs."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as trace:
        for _ in islice(updates, LOOKED_AT):
            pass
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    kernels: dict[str, list[float]] = {}
    spans = []
    for event in trace.events() or ():
        if str(event.device_type).endswith("CUDA"):
            spans.append((event.time_range.start, event.time_range.end))
            count_and_time = kernels.setdefault(event.name[:90], [0, 0.0])
            count_and_time[0] += 1
            count_and_time[1] += event.time_range.end - event.time_range.start
    longest = sorted(kernels.items(), key=lambda item: -item[1][1])[:SHOWN_KERNELS]
    whole = max((end for _, end in spans), default=0) - min((at for at, _ in spans), default=0)
    found: dict[str, Any] = {
        "kernels_a_step": len(spans) / LOOKED_AT,
        "busy_share": covered(spans) / whole if whole else None,
        "longest_us_a_step": [
            [name, number / LOOKED_AT, round(time / LOOKED_AT)] for name, (number, time) in longest
        ],
    }
    record.figures("trace", preset=preset, **found)
