"""What a run prints when it starts: what it trains, on what, how long, in how much memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from coordtok import distributed
from coordtok.config.models import TokenizerModelConfig
from coordtok.config.schema import RunConfig
from coordtok.scaling.flops import training_step_flops
from coordtok.scaling.memory import Zero, host_memory, rank_memory
from coordtok.scaling.parameters import parameters
from coordtok.train.checkpoint import TrainState
from coordtok.train.engine import Sharding, attention_kernel, rank_batch
from coordtok.train.resume import changes
from coordtok.train.validation import HeldOut


def summary(
    run: RunConfig,
    sharding: Sharding,
    data: list[dict[str, Any]],
    held_out: HeldOut | None,
    checkpoint: Path | None,
    state: TrainState | None,
) -> str:
    """A line for each thing, under one that says whether the run begins or goes on."""
    lines = {
        "model": _model(run),
        "data": _data(run, data),
        "held out": _held_out(run, held_out),
        "steps": _steps(run, data, 0 if state is None else state.step),
        "device": f"{_device()}, {_precision(sharding, state)}{_how(run, sharding)}",
        "sharding": _sharding(run, sharding),
        "memory": _memory(run, sharding),
    }
    title = f"{run.run_dir}: a new run"
    if run.train.init_from is not None:
        title += f" from the weights of {run.train.init_from}"
    if state is not None:
        title = f"{run.run_dir} goes on from step {state.step} ({checkpoint})"
        lines["changed"] = ", ".join(_changes(run, sharding, state)) or "nothing since then"
    return "\n".join(["", title, *(f"  {name:<9} {text}" for name, text in lines.items()), ""])


def _model(run: RunConfig) -> str:
    model, latent = run.model, run.model.latent
    count = f"{model.name}, {_short(sum(parameters(model).values()))} parameters"
    planes = f"{latent.positions:,} tokens, {latent.numbers:,} numbers"
    if isinstance(model, TokenizerModelConfig):
        return f"{count}: {model.frames} frames of {model.height} x {model.width} as {planes}"
    return f"{count} on latents of {planes}"


def _data(run: RunConfig, data: list[dict[str, Any]]) -> str:
    """Epochs count in samples: each is seen once in one, as a random clip of it."""
    weights = sum(source["weight"] for source in data)
    clips = run.train.steps * run.train.global_batch
    return "; ".join(
        f"{source['path']}: {source['samples']:,} samples, "
        f"{clips * source['weight'] / weights / source['samples']:.3g} epochs"
        for source in data
    )


def _held_out(run: RunConfig, held_out: HeldOut | None) -> str:
    if held_out is None:
        return "none (data.val_shards is null)"
    return f"{run.data.val_shards}: {held_out.clips:,} clips every {run.train.eval_every:,} steps"


def _steps(run: RunConfig, data: list[dict[str, Any]], done: int) -> str:
    steps, batch = run.train.steps, run.train.global_batch
    left = f", {steps - done:,} to go" if done else ""
    flops = _short(training_step_flops(run).total)
    return f"{steps:,}{left}, {batch:,} clips each: {steps * batch:,} clips; {flops}FLOP a step"


def _device() -> str:
    device = distributed.device()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, threads a rank: {torch.get_num_threads()}"


def _precision(sharding: Sharding, state: TrainState | None) -> str:
    if not sharding.is_open:
        return sharding.precision
    chosen = "as before" if state is not None else "chosen for it"
    return f"{sharding.precision} ({chosen})"


def _how(run: RunConfig, sharding: Sharding) -> str:
    """Kernels: of attention, and whether blocks are compiled."""
    compiled = ", compiled blocks" if run.train.compile else ""
    return f", attention by {attention_kernel(run, sharding)}{compiled}"


def _sharding(run: RunConfig, sharding: Sharding) -> str:
    ranks = distributed.world_size()
    micro = rank_batch(run, ranks)
    passes = run.train.global_batch // (ranks * micro)
    return (
        f"ZeRO {sharding.stage} ({sharding.source}), ranks: {ranks}; of each step's clips a rank "
        f"takes {passes} x {micro}"
    )


def _memory(run: RunConfig, sharding: Sharding) -> str:
    """By formula (coordtok.scaling.memory): libraries and what an allocator wastes come on top."""
    zero, ranks = Zero.of(sharding.config, sharding.source), distributed.world_size()
    if distributed.device().type == "cpu":  # what is never written of the bucket takes no memory
        zero = replace(zero, bucket=min(zero.bucket, sum(parameters(run.model).values())))
    parts = rank_memory(run, zero, ranks, rank_batch(run, ranks))
    unit, letter = (2**30, "GiB") if sum(parts.values()) >= 2**30 else (2**20, "MiB")
    listed = ", ".join(f"{name} {size / unit:.1f}" for name, size in parts.items() if size)
    host = host_memory(run, zero, ranks, rank_batch(run, ranks))
    offloaded = f"; {host / unit:.1f} offloaded to the host" if host else ""
    return f"about {sum(parts.values()) / unit:.1f} {letter} a rank: {listed}{offloaded}"


def _changes(run: RunConfig, sharding: Sharding, state: TrainState) -> list[str]:
    """Of the config, and of what the launcher and the JSON decide."""
    pairs = {
        "ranks": (state.world_size, distributed.world_size()),
        "ZeRO": (state.zero_stage, sharding.stage),
        "precision": (state.precision, sharding.precision),
    }
    others = [f"{name} {then} -> {now}" for name, (then, now) in pairs.items() if then != now]
    return changes(state, run) + others


def _short(number: float) -> str:
    """12.3 M."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number / 1e3:.3g} k"
