"""How long training stands still for a checkpoint, and what saving and loading one take."""

import time
from contextlib import ExitStack
from pathlib import Path

import torch

from coordtok import distributed
from coordtok.benchmarks.bench_train import shared_folder
from coordtok.benchmarks.table import Report, table
from coordtok.config.load import to_dict
from coordtok.config.schema import RunConfig
from coordtok.errors import ConfigError
from coordtok.scaling.checkpoints import ADAM_STATES
from coordtok.train.checkpoint import TrainState, restore, slices_of
from coordtok.train.checkpoint_folder import committed
from coordtok.train.ema import EMA
from coordtok.train.engine import Sharding, build_engine, load_sharding
from coordtok.train.masters import Masters
from coordtok.train.peak import peak_bytes, peak_kind, reset_peak
from coordtok.train.saver import Saver
from coordtok.train.tasks.kinds import task_class


def measure_checkpoints(
    run: RunConfig,
    sharding_path: str,
    folder: Path | None,
    load_only: bool,
    work_folder: str | None,
) -> Report:
    """Save and load checkpoints of the size of `run`; every rank calls this.

    Args:
        folder: where checkpoints stay; None takes a temporary folder in `work_folder`.
        load_only: save none, and load what is in `folder`.

    Raises:
        UserError: as training does.
    """
    if load_only and (folder is None or not committed(folder)):
        raise ConfigError("--load-only needs a --folder in which an earlier call left a checkpoint")
    distributed.setup()
    sharding = load_sharding(sharding_path, run, distributed.world_size())
    with ExitStack() as stack:
        place = folder or stack.enter_context(shared_folder(work_folder))
        _, masters = build_engine(
            lambda: task_class(run.model).model_class(run.model), run, sharding
        )
        ema = EMA(masters, run.ema) if run.ema.decay else None
        figures: dict[str, float] = {}
        if not load_only:
            _make_states(masters)
            figures |= _saving(masters, ema, run, sharding, place)
        figures |= _loading(masters, ema, committed(place)[0])
    return _report(run, sharding, figures)


def _make_states(masters: Masters) -> None:
    """Adam's, after one step, of random numbers."""
    names = masters.shapes
    masters.make_states(dict.fromkeys(names, ADAM_STATES), {name: {"step": 1.0} for name in names})
    for of_state in masters.states().values():
        for piece in of_state.values():
            piece.values.normal_()


def _saving(
    masters: Masters, ema: EMA | None, run: RunConfig, sharding: Sharding, folder: Path
) -> dict[str, float]:
    """The second save of each kind: the first makes room for copies."""
    figures = {}
    device = distributed.device()
    for step, (name, background) in enumerate((("waiting", False), ("background", True))):
        saver = Saver(folder, masters, ema, keep_last=1, background=background)
        for number in (1, 2):
            state = TrainState(
                2 * step + number, 0.0, {}, [], 0, to_dict(run), distributed.world_size(),
                sharding.stage, sharding.precision, 0.0,
            )  # fmt: skip
            reset_peak(device)
            began = time.perf_counter()
            done = saver.save(state, began)
            pause = time.perf_counter() - began
            done |= saver.finish()
        figures[f"{name}_pause"] = pause
        figures[f"{name}_seconds"] = done["save_seconds"]
        figures[f"{name}_peak_bytes"] = float(peak_bytes(device))
    return figures


def _loading(masters: Masters, ema: EMA | None, checkpoint: Path) -> dict[str, float]:
    masters.optimizer.state.clear()
    distributed.barrier()
    reset_peak(distributed.device())
    began = time.perf_counter()
    cost = restore(checkpoint, masters, ema)
    seconds = time.perf_counter() - began
    slices = slices_of(masters, ema).values()
    share = sum(piece.values.numel() * 4 for of_kind in slices for piece in of_kind.values())
    return {
        "load_seconds": seconds,
        "load_files": cost.files,
        "load_bytes": cost.bytes,
        "share_bytes": share,
        "load_peak_bytes": float(peak_bytes(distributed.device())),
    }


def _report(run: RunConfig, sharding: Sharding, figures: dict[str, float]) -> Report:
    """Of rank 0; the others' shares are as large."""
    kind = peak_kind(distributed.device())
    heading = ["", "training waits, s", "in all, s", f"peak of the {kind}, MiB"]
    rows = []
    for name, key in (("false", "waiting"), ("true", "background")):
        if f"{key}_pause" in figures:
            pause, seconds = figures[f"{key}_pause"], figures[f"{key}_seconds"]
            peak = f"{figures[f'{key}_peak_bytes'] / 2**20:,.0f}"
            rows.append([f"train.async_save={name}", f"{pause:.2f}", f"{seconds:.2f}", peak])
    load = f"{figures['load_seconds']:.2f}"
    rows += [["load", load, load, f"{figures['load_peak_bytes'] / 2**20:,.0f}"]]
    text = (
        f"{table([heading, *rows])}\n"
        f"a rank opens {figures['load_files']:.0f} files and reads {figures['load_bytes']:,.0f} "
        f"bytes of them, for a share of {figures['share_bytes']:,.0f}"
    )
    settings = {"ranks": distributed.world_size(), "stage": sharding.stage,
                "precision": sharding.precision, "threads": torch.get_num_threads()}  # fmt: skip
    return Report({"config": to_dict(run), "settings": settings, "checkpoint": figures}, text)
