"""One rank of what is measured to check plans: memory, collectives and seconds of real updates.

`measure` starts ranks of this file by torchrun, `main` is what each runs: cases by turns in one
process, so that what changes on the machine changes for all of them.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from coordtok.config.load import load_config
from coordtok.errors import TrainingError

_COLLECTIVES = ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor")
_TRACES = 3
"""Of which the least counts: what a thread of gloo frees is in no trace, as if it were held. Seen
once in seven traces, a bucket of gradients each time."""
_SCALARS = 16
"""Bytes up to which a message is the norm of gradients, or whether one overflowed."""


class Case(NamedTuple):
    """A run that is measured, and the DeepSpeed JSON that shards it."""

    config: str
    overrides: tuple[str, ...]
    sharding: Mapping[str, Any]

    @property
    def name(self) -> str:
        """For tables."""
        zero = self.sharding["zero_optimization"]
        precision = "bf16" if self.sharding["bf16"]["enabled"] else "fp32"
        changed = [
            each.partition(".")[2]
            for each in self.overrides
            if not each.startswith(("data.", "wandb.", "train.micro_batch=null"))
        ]
        more = [
            f"{key.removeprefix('stage3_')}={value:.3g}"
            for key, value in zero.items()
            if key.startswith("stage3_")
        ]
        return " ".join(
            [Path(self.config).stem, *changed, f"ZeRO-{zero['stage']} {precision}", *more]
        )


def measure(what: str, cases: Sequence[Case], ranks: int, turns: int, on_gpu: bool) -> list[Any]:
    """What `ranks` processes find for each case. what: "memory", "messages" or "seconds".

    Raises:
        TrainingError: they failed.
    """
    with TemporaryDirectory() as folder:
        asked, found = Path(folder) / "asked.json", Path(folder) / "found.json"
        asked.write_text(json.dumps([what, turns, [case._asdict() for case in cases]]))
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // ranks)),
        }
        if not on_gpu:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        done = subprocess.run(
            [sys.executable, *launcher, "-m", __name__, str(asked), str(found)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode or not found.is_file():
            raise TrainingError(f"measuring {what} failed:\n{done.stderr[-4000:]}")
        return list(json.loads(found.read_text()))


def main(asked: str, found: str) -> None:
    """Measure the cases of the JSON `asked`, and write `found`."""
    what, turns, cases = json.loads(Path(asked).read_text())
    from coordtok import distributed
    from coordtok.train.quiet import quieten
    from coordtok.train.signals import watch_launcher

    quieten()
    watch_launcher()
    distributed.setup()
    each = [Case(case["config"], tuple(case["overrides"]), case["sharding"]) for case in cases]
    results = _seconds(each, turns) if what == "seconds" else [_one(what, case) for case in each]
    if distributed.is_main():
        Path(found).write_text(json.dumps(results))


def _one(what: str, case: Case) -> Any:
    if what == "memory":
        return _peak(case)
    with ExitStack() as stack:
        return _messages(_updates(case, stack, 4))


def _updates(case: Case, stack: ExitStack, steps: int) -> Iterator[int]:
    """The updates of a case, each made when it is asked for."""
    from coordtok import distributed
    from coordtok.benchmarks.bench_train import on_noise, shared_folder, trainer_to_measure
    from coordtok.train.engine import load_sharding

    work = stack.enter_context(shared_folder(None))
    run = on_noise(load_config(case.config, case.overrides), work)
    path = work / "sharding.json"
    distributed.run_on_main(lambda: path.write_text(json.dumps(case.sharding)))
    sharding = load_sharding(str(path), run, distributed.world_size())
    trainer = stack.enter_context(trainer_to_measure(run, sharding, work, steps))
    return (step for step, _ in trainer.steps())


def _messages(updates: Iterator[int]) -> dict[str, int]:
    """Bytes of the third update, by operation, as DeepSpeed's comms logger counts them."""
    from coordtok.train.messages import logged_messages

    for _ in range(2):
        next(updates)
    with logged_messages() as logged:
        next(updates)
    return {
        name: sum(size * each[0] for size, each in logged.get(name, {}).items() if size > _SCALARS)
        for name in _COLLECTIVES
    }


def _peak(case: Case) -> int:
    """Bytes held at most after the first update: by a GPU's allocator, or traced on a CPU."""
    import gc

    from coordtok import distributed

    on_gpu = distributed.device().type == "cuda"
    found = []
    for _ in range(1 if on_gpu else _TRACES):
        gc.collect()  # the engine before this one
        with ExitStack() as stack:
            found.append(_allocated(case, stack) if on_gpu else _traced(case, stack))
    return min(found)


def _allocated(case: Case, stack: ExitStack) -> int:
    import torch

    from coordtok import distributed

    device = distributed.device()
    before = torch.cuda.memory_allocated(device)
    updates = _updates(case, stack, 4)
    next(updates)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats(device)
    for _ in updates:
        pass
    return torch.cuda.max_memory_allocated(device) - before


def _traced(case: Case, stack: ExitStack) -> int:
    from torch.profiler import ProfilerActivity, profile, record_function

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        updates = _updates(case, stack, 4)
        next(updates)
        with record_function(_WARM):
            pass
        for _ in updates:
            pass
    assert trace.profiler is not None
    events = trace.profiler.kineto_results.events()
    began = next(event.start_ns() for event in events if event.name() == _WARM)
    held = peak = 0
    for at, size in sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"):
        held += size
        peak = max(peak, held) if at >= began else held
    return peak


_WARM = "after the first update"


def _seconds(cases: Sequence[Case], turns: int) -> list[Any]:
    """Of each case the seconds of updates, all cases by turns, and of a probe before each."""
    import torch

    from coordtok import distributed
    from coordtok.benchmarks.probes import probe

    device = distributed.device()

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    with ExitStack() as stack:
        running = [_updates(case, stack, 2 * turns + _WARM_UP) for case in cases]
        for updates in running:
            for _ in range(_WARM_UP):
                next(updates)
        taken: list[list[float]] = [[] for _ in cases]
        probes = []
        for _ in range(turns):
            for updates, seconds in zip(running, taken):
                probes.append(probe(device))  # as often, since the machine's pace may change
                began = now()
                next(updates)
                next(updates)
                seconds.append((now() - began) / 2)
    return [*taken, probes]


_WARM_UP = 3

if __name__ == "__main__":
    main(*sys.argv[1:])
