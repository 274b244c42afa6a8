"""What DeepSpeed's engine takes of the host beside the model's own operators.

All layers of a preset at a width of 32 on clips of a few patches: next to nothing is computed, and
what remains of a micro-batch's forward and backward pass is Python, hooks and the start of kernels.
The bare module and engines of every ZeRO stage take turns in one process.
"""

import statistics
from collections.abc import Callable
from contextlib import ExitStack

from coordtok import distributed
from coordtok.benchmarks.bench_train import (
    PHASES,
    on_noise,
    put_clock,
    shared_folder,
    trainer_to_measure,
)
from coordtok.benchmarks.phases import Clock
from coordtok.benchmarks.table import Report, table
from coordtok.config.load import to_dict
from coordtok.config.schema import RunConfig
from coordtok.train.engine import STAGES, Sharding, load_sharding
from coordtok.train.loop import Trainer
from coordtok.train.tasks.sending import send_batch

NARROW = (
    "model.dim=32", "model.heads=2", "model.frames=16", "model.height=32", "model.width=32",
    "model.video_patch=[8,8,8]", "model.plane_size=[4,4,4]", "model.plane_patch=[2,2,2]",
    "train.points=16", "train.global_batch=1", "train.micro_batch=1", "data.workers=0",
)  # fmt: skip
BARE = "bare module"
_WARM_UP = 3


def measure_engine(run: RunConfig, turns: int, work_folder: str | None) -> Report:
    """Of a tokenizer that `NARROW` has made small: medians of `turns` micro-batches."""
    distributed.setup()
    sides: dict[str, Callable[[], float]] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(shared_folder(work_folder))
        run = on_noise(run, folder)
        for stage in STAGES:
            (work := folder / str(stage)).mkdir()
            sharding = load_sharding(f"zero{stage}", run, distributed.world_size())
            making = trainer_to_measure(run, sharding, work, turns + _WARM_UP)
            trainer = stack.enter_context(making)
            if not sides:
                sides[BARE] = _bare(trainer, sharding)
            sides[f"ZeRO-{stage}"] = _engine(trainer)
        turned = [[side() for side in sides.values()] for _ in range(turns + _WARM_UP)]
    medians = dict(zip(sides, map(statistics.median, zip(*turned[_WARM_UP:]))))
    rows = [["forward and backward", "ms", "of the bare module's"]]
    for name, each in medians.items():
        rows.append([name, f"{1000 * each:.1f}", f"{each / medians[BARE]:.2f}"])
    figures = {name: {"seconds": each} for name, each in medians.items()}
    settings = {"run": to_dict(run), "turns": turns, "precision": sharding.precision}
    text = f"a micro-batch of one tiny clip, all layers 32 wide, {sharding.precision}:"
    return Report({"settings": settings, "engine": figures}, f"{text}\n{table(rows)}")


def _bare(trainer: Trainer, sharding: Sharding) -> Callable[[], float]:
    """Seconds of a micro-batch of a model that no engine knows of."""
    device, task = distributed.device(), trainer.task
    model = task.model_class(trainer.run.model).to(device, sharding.dtype)
    batch, _ = next(trainer.batches)
    batch = send_batch(batch)
    clock = Clock(())

    def passes() -> float:
        began = clock.now()
        task.loss(model, batch)["loss"].mean().backward()
        seconds = clock.now() - began
        model.zero_grad(set_to_none=True)
        return seconds

    return passes


def _engine(trainer: Trainer) -> Callable[[], float]:
    """Seconds of the passes of the next update."""
    clock = Clock(PHASES)
    put_clock(trainer, clock)
    updates = trainer.steps()

    def passes() -> float:
        next(updates)
        phases = clock.take()
        return phases["forward"] + phases["backward"]

    return passes
