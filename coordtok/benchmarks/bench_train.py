"""How fast a preset trains on this machine, and what a step's time is spent on.

The steps are the training loop's own (`Trainer.steps`): its engine, task and loader only stand
behind a clock. Nothing is saved or validated.
"""

import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from coordtok import distributed
from coordtok.benchmarks.communication import traced_collective_seconds
from coordtok.benchmarks.phases import Clock, Timed
from coordtok.benchmarks.synthetic import write_noise_latents, write_noise_shards
from coordtok.benchmarks.table import Report, table
from coordtok.config.load import to_dict
from coordtok.config.models import DiTModelConfig
from coordtok.config.schema import RunConfig
from coordtok.config.training import DatasetConfig
from coordtok.data.index import VideoSpec
from coordtok.scaling.devices import device_called
from coordtok.scaling.flops import training_step_flops
from coordtok.train.engine import Sharding, attention_kernel, load_sharding
from coordtok.train.loop import Trainer
from coordtok.train.peak import peak_bytes, peak_kind, reset_peak
from coordtok.train.run import assemble, prepare
from coordtok.train.run_folder import RunFolder
from coordtok.train.signals import StopRequest, watch_launcher

PHASES = ("data", "forward", "backward", "optimiser")
_WARM_UP = 3
_TRACED = 3


def measure_training(
    run: RunConfig, sharding_path: str, steps: int, own_shards: bool, work_folder: str | None
) -> Report:
    """Train `run` for `steps` measured steps and a few more; every rank calls this.

    Args:
        own_shards: read `run.data.shards`; otherwise noise, made in `work_folder`.

    Raises:
        UserError: as training does.
    """
    watch_launcher()
    distributed.setup()
    sharding = load_sharding(sharding_path, run, distributed.world_size())
    with shared_folder(work_folder) as work:
        if not own_shards:
            run = on_noise(run, work)
        with trainer_to_measure(run, sharding, work, steps_needed(steps)) as trainer:
            figures = measure_steps(trainer, shown_steps(trainer), steps)
    return _report(trainer.run, sharding, figures_of(trainer.run, sharding, figures))


def steps_needed(steps: int) -> int:
    """That `measure_steps` takes."""
    return 2 * steps + _WARM_UP + _TRACED


@contextmanager
def shared_folder(parent: str | None) -> Iterator[Path]:
    """A temporary folder in `parent` for all ranks, there until all of them are done with it."""
    with ExitStack() as stack:
        made = distributed.run_on_main(lambda: stack.enter_context(TemporaryDirectory(dir=parent)))
        yield Path(made)
        distributed.barrier()


@contextmanager
def trainer_to_measure(
    run: RunConfig, sharding: Sharding, work: Path, steps: int
) -> Iterator[Trainer]:
    """The trainer of `run` without what is no part of a step, for `steps` steps in `work`."""
    run = replace(
        run,
        run_dir=str(work / "run"),
        data=replace(run.data, val_shards=None),
        train=replace(run.train, steps=steps),
        optim=replace(run.optim, schedule="constant", warmup_steps=0),
        wandb=replace(run.wandb, mode="disabled"),
    )
    folder = RunFolder(run.run_dir)
    distributed.run_on_main(folder.create)
    parts = prepare(run, None, False)
    trainer = assemble(parts, sharding, folder, None, None, StopRequest())
    trainer.fetch_first()
    trainer.monitor.begin(0)
    try:
        yield trainer
    finally:
        trainer.monitor.close()


def reading(run: RunConfig, shards: str) -> RunConfig:
    """`run` on shards that were made for it."""
    return replace(run, tokenizer=None, data=replace(run.data, shards=(DatasetConfig(shards),)))


def lanes_for(run: RunConfig) -> int:
    """As few as all loader processes need."""
    return distributed.world_size() * max(1, run.data.workers)


def on_noise(run: RunConfig, work: Path) -> RunConfig:
    """`run` on noise of the model's shape."""
    folder, lanes, model = work / "noise", lanes_for(run), run.model

    def write() -> str:
        folder.mkdir()
        if isinstance(model, DiTModelConfig):
            return write_noise_latents(folder, model.latent, lanes=lanes, samples_per_shard=2)
        clip = VideoSpec(model.frames, model.height, model.width, None)
        return write_noise_shards(folder, clip, lanes=lanes, shards_per_lane=1, samples_per_shard=2)

    return reading(run, distributed.run_on_main(write))


def measure_steps(trainer: Trainer, updates: Iterator[int], steps: int) -> dict[str, Any]:
    """Seconds and bytes of the next `updates`: first as a run trains, then with a clock in it, then
    with a trace; every rank calls this."""
    deque(islice(updates, _WARM_UP), maxlen=0)
    device = distributed.device()
    reset_peak(device)
    seconds = []
    began = time.perf_counter()
    for _ in islice(updates, steps):
        now = time.perf_counter()
        seconds.append(now - began)
        began = now
    memory = {"peak_bytes": max(distributed.gather(peak_bytes(device)))}
    if device.type == "cuda":
        memory["reserved_bytes"] = max(distributed.gather(torch.cuda.max_memory_reserved(device)))
    clock = Clock(PHASES, by_events=True)
    put_clock(trainer, clock)
    taken = []
    began = time.perf_counter()
    for _ in islice(updates, steps):
        phases = clock.take()
        now = time.perf_counter()
        taken.append({"clocked step": now - began, **phases})
        began = now
    traced = islice(updates, _TRACED)
    communication = traced_collective_seconds(lambda: deque(traced, maxlen=0)) / _TRACED
    step = statistics.median(seconds)
    slowest = max(distributed.gather(step))
    spread = {"step": step, "slowest_rank": slowest, "step_longest": max(seconds)}
    return {**spread, **_medians(taken), "communication": communication, **memory}


def put_clock(trainer: Trainer, clock: Clock) -> None:
    """Have the clock stand between the loop and its parts."""
    target: Any = trainer
    target.engine = Timed(trainer.engine, clock, {"backward": "backward", "step": "optimiser"})
    target.task = Timed(trainer.task, clock, {"loss": "forward"})
    if trainer.ema is not None:
        target.ema = Timed(trainer.ema, clock, {"update": "optimiser"})
    fetch, batches = clock.timed("data", next), trainer.batches
    target.batches = iter(lambda: fetch(batches), None)


def shown_steps(trainer: Trainer) -> Iterator[int]:
    """The trainer's steps, on its progress bar."""
    began = time.perf_counter()
    for step, result in trainer.steps():
        rate = step * trainer.run.train.global_batch / (time.perf_counter() - began)
        trainer.monitor.step(result.losses["loss"], rate)
        yield step


def _medians(taken: list[dict[str, float]]) -> dict[str, float]:
    """Median seconds of a step and its phases; `other` is the rest of the step."""
    medians = {name: statistics.median(each[name] for each in taken) for name in taken[0]}
    rest = [each["clocked step"] - sum(each[phase] for phase in PHASES) for each in taken]
    return {**medians, "other": statistics.median(rest)}


def figures_of(run: RunConfig, sharding: Sharding, measured: dict[str, Any]) -> dict[str, Any]:
    """What was measured, and operations a second of a rank by formula, without what is recomputed,
    also as a share of what its maker says the device can do."""
    flops = training_step_flops(run)
    rate = (flops.forward + flops.backward) / distributed.world_size() / measured["step"]
    found = {"clips_per_s": run.train.global_batch / measured["step"], "flops_per_s": rate}
    on_gpu = distributed.device().type == "cuda"
    device = device_called(torch.cuda.get_device_name()) if on_gpu else None
    if device is not None:
        peak = device.bf16 if sharding.dtype == torch.bfloat16 else device.fp32
        found |= {"mfu": rate / peak, "mfu_denominator": peak, "mfu_source": device.source}
    how = {"attention": attention_kernel(run, sharding), "compiled": run.train.compile}
    return {**measured, **found, **how}


def _report(run: RunConfig, sharding: Sharding, figures: dict[str, Any]) -> Report:
    ranks, batch = distributed.world_size(), run.train.global_batch
    rows = [["of a step", "ms", "share"]]
    for name in (*PHASES, "other", "clocked step", "communication", "step"):
        share = figures[name] / figures["step" if name == "step" else "clocked step"]
        rows.append([name, f"{1000 * figures[name]:.1f}", f"{100 * share:.0f} %"])
    kind = peak_kind(distributed.device())
    text = [
        f"ranks {ranks}, ZeRO-{sharding.stage}, {sharding.precision}, {batch} clips a step, "
        f"attention by {figures['attention']}: {figures['clips_per_s']:.2f} clips/s, "
        f"{figures['flops_per_s'] / 1e12:.3g} TFLOP/s a rank{_mfu(figures)}",
        f"peak memory {figures['peak_bytes'] / 2**20:,.0f} MiB a {kind}{_reserved(figures)}",
        table(rows),
    ]
    settings = {"ranks": ranks, "sharding": sharding.config, "run": to_dict(run)}
    return Report({"settings": settings, "train": figures}, "\n".join(text))


def _mfu(figures: dict[str, Any]) -> str:
    if "mfu" not in figures:
        return ""
    peak = figures["mfu_denominator"] / 1e12
    return f", {100 * figures['mfu']:.1f} % of {peak:.0f} ({figures['mfu_source']})"


def _reserved(figures: dict[str, Any]) -> str:
    size = figures.get("reserved_bytes")
    return "" if size is None else f", {size / 2**20:,.0f} MiB reserved"
