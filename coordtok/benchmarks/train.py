"""How fast a preset trains on this machine, and what a step's time is spent on.

The steps are the training loop's own (`Trainer.steps`): its engine, task and loader only stand
behind a clock. Nothing is saved or validated.
"""

import resource
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from coordtok import distributed
from coordtok.benchmarks.communication import traced_collective_seconds
from coordtok.benchmarks.report import Report, table
from coordtok.benchmarks.synthetic import write_noise_shards
from coordtok.config.errors import ConfigError
from coordtok.config.load import to_dict
from coordtok.config.schema import DiTModelConfig, RunConfig, ShardSource
from coordtok.data.index import VideoSpec
from coordtok.train.engine import Sharding, load_sharding
from coordtok.train.loop import Trainer
from coordtok.train.run import assemble
from coordtok.train.run_folder import RunFolder
from coordtok.train.signals import StopRequest, watch_launcher

PHASES = ("data", "forward", "backward", "optimiser")
_WARM_UP = 3
_TRACED = 3


class Clock:
    """Seconds of each phase of the present step; the device's work is waited for."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(PHASES, 0.0)

    def timed(self, phase: str, action: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = self._now()
            try:
                return action(*args, **kwargs)
            finally:
                self._seconds[phase] += self._now() - began

        return run

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by phase."""
        taken, self._seconds = self._seconds, dict.fromkeys(PHASES, 0.0)
        return taken

    def _now(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


class Timed:
    """Stands for an object, some of whose methods count as a phase."""

    def __init__(self, target: Any, clock: Clock, phases: Mapping[str, str]) -> None:
        self._target, self._clock, self._phases = target, clock, phases

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return self._clock.timed(self._phases[name], value) if name in self._phases else value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._target(*args, **kwargs)


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
    with ExitStack() as stack:
        work = Path(
            distributed.run_on_main(
                lambda: stack.enter_context(TemporaryDirectory(dir=work_folder))
            )
        )
        run = _to_measure(run, work, steps + _WARM_UP + _TRACED, own_shards)
        sharding = load_sharding(sharding_path, run, distributed.world_size())
        folder = RunFolder(run.run_dir)
        distributed.run_on_main(folder.create)
        trainer = assemble(run, sharding, folder, None, None, False, StopRequest())
        stack.callback(trainer.monitor.close)
        figures = _measure(trainer, steps)
        distributed.barrier()  # rank 0 deletes the shards
    return _report(run, sharding, figures)


def _to_measure(run: RunConfig, work: Path, steps: int, own_shards: bool) -> RunConfig:
    """The run without what is no part of a step, in a folder of its own."""
    data = replace(run.data, val_shards=None)
    if not own_shards:
        if isinstance(run.model, DiTModelConfig):
            raise ConfigError(f"{run.model.name} trains on latents: encode some, and --own-shards")
        clip = VideoSpec(run.model.frames, run.model.height, run.model.width, None)
        lanes = distributed.world_size() * max(1, run.data.workers)
        (noise := work / "noise").mkdir(exist_ok=True)
        distributed.run_on_main(
            lambda: write_noise_shards(
                noise, clip, lanes=lanes, shards_per_lane=1, samples_per_shard=2
            )
        )
        data = replace(data, shards=(ShardSource(str(noise)),))
    return replace(
        run,
        run_dir=str(work / "run"),
        data=data,
        train=replace(run.train, steps=steps),
        optim=replace(run.optim, schedule="constant", warmup_steps=0),
        wandb=replace(run.wandb, mode="disabled"),
    )


def _measure(trainer: Trainer, steps: int) -> dict[str, Any]:
    clock = Clock()
    _put_clock(trainer, clock)
    updates = _shown(trainer)
    for _ in islice(updates, _WARM_UP):
        clock.take()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    taken = []
    began = time.perf_counter()
    for _ in islice(updates, steps):
        now = time.perf_counter()
        taken.append({"step": now - began, **clock.take()})
        began = now
    memory = max(distributed.gather(_peak_bytes()))
    communication = traced_collective_seconds(lambda: deque(updates, maxlen=0)) / _TRACED
    return {**_medians(taken), "communication": communication, "peak_bytes": memory}


def _put_clock(trainer: Trainer, clock: Clock) -> None:
    """Have the clock stand between the loop and its parts."""
    target: Any = trainer
    target.engine = Timed(trainer.engine, clock, {"backward": "backward", "step": "optimiser"})
    target.task = Timed(trainer.task, clock, {"loss": "forward"})
    if trainer.ema is not None:
        target.ema = Timed(trainer.ema, clock, {"update": "optimiser"})
    fetch, batches = clock.timed("data", next), trainer.batches
    target.batches = iter(lambda: fetch(batches), None)


def _shown(trainer: Trainer) -> Iterator[int]:
    """The trainer's steps, on its progress bar."""
    began = time.perf_counter()
    for step, result in trainer.steps():
        rate = step * trainer.run.train.global_batch / (time.perf_counter() - began)
        trainer.monitor.step(result.losses["loss"], rate)
        yield step


def _medians(taken: list[dict[str, float]]) -> dict[str, float]:
    """Median seconds of a step and its phases; `other` is the rest of the step."""
    medians = {name: statistics.median(each[name] for each in taken) for name in taken[0]}
    rest = [each["step"] - sum(each[phase] for phase in PHASES) for each in taken]
    return {**medians, "other": statistics.median(rest)}


def _peak_bytes() -> int:
    """Most memory this rank held: of its GPU, else of its process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _report(run: RunConfig, sharding: Sharding, figures: dict[str, Any]) -> Report:
    ranks, batch = distributed.world_size(), run.train.global_batch
    rate = batch / figures["step"]
    rows = [["of a step", "ms", "share"]]
    for name in (*PHASES, "other", "step", "communication"):
        seconds = figures[name]
        rows.append([name, f"{1000 * seconds:.1f}", f"{100 * seconds / figures['step']:.0f} %"])
    kind = "GPU" if torch.cuda.is_available() else "process"
    text = [
        f"ranks {ranks}, ZeRO-{sharding.stage}, {sharding.precision}, {batch} clips a step: "
        f"{rate:.2f} clips/s, peak memory {figures['peak_bytes'] / 2**20:,.0f} MiB a {kind}",
        table(rows),
    ]
    settings = {"ranks": ranks, "sharding": sharding.config, "run": to_dict(run)}
    return Report(
        {"settings": settings, "train": {"clips_per_s": rate, **figures}}, "\n".join(text)
    )
