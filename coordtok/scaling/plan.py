"""What a training run will need, before it is paid for: memory, time, data, checkpoints, cost.

`make_plan` puts together what the formulas beside it say of one config, sharding, device and number
of ranks, and names what would keep the run from working or from being fast.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from coordtok.config.load import as_yaml, build
from coordtok.config.models import TokenizerModelConfig
from coordtok.config.schema import RunConfig
from coordtok.config.training import Recomputation
from coordtok.errors import ConfigError
from coordtok.scaling.devices import Device
from coordtok.scaling.flops import StepFlops, training_step_flops
from coordtok.scaling.memory import FLOAT, Zero, checkpoint_bytes, host_memory, rank_memory
from coordtok.scaling.parameters import parameters
from coordtok.scaling.times import StepTime, step_time
from coordtok.storage.json_files import read_json

MEMORY_SHARE = 0.92
"""Of a device's memory, what a run may plan with: the rest is the driver's, the libraries' and lost
between blocks."""
DAY = 86_400.0
NETWORK = 50e9
"""Bytes a second that a device sends beyond its node: one 400 Gbit/s adapter each."""
NODE = 8
DECODE_SECONDS = 19e-3
"""Of one core, for a window of 128 x 128 x 128 in H.264 (docs/performance.md)."""
H264_BITS_PER_PIXEL = 0.35
"""Of shards at their default quality, bits for each pixel of each frame."""


@dataclass(frozen=True)
class Plan:
    """Of one run on `ranks` devices."""

    run: RunConfig
    zero: Zero
    device: Device
    ranks: int
    micro_batch: int
    largest_micro_batch: int
    """That fits in memory; 0 if none does."""
    parameters: Mapping[str, int]
    flops: StepFlops
    memory: Mapping[str, float]
    """Bytes on each rank's device, by what they are for."""
    host_memory: float
    """Bytes of each rank's host that offloading takes."""
    time: StepTime
    checkpoint: float
    """Bytes of one."""

    @property
    def accumulation(self) -> int:
        return self.run.train.global_batch // (self.ranks * self.micro_batch)

    @property
    def clips_per_second(self) -> float:
        """Of all ranks together."""
        return self.run.train.global_batch / self.time.total

    @property
    def mfu(self) -> float:
        """Operations that the mathematics needs, nothing recomputed, over what the devices could do
        in that time."""
        rate = self.device.bf16 if self.zero.number == 2 else self.device.fp32
        needed = self.flops.forward + self.flops.backward
        return needed / (self.time.total * rate * self.ranks)

    @property
    def days(self) -> float:
        return self.run.train.steps * self.time.total / DAY

    @property
    def device_hours(self) -> float:
        return self.days * 24 * self.ranks

    @property
    def kilowatt_hours(self) -> float:
        """Of the devices alone."""
        return self.device_hours * self.device.watts / 1000

    @property
    def fits(self) -> bool:
        return sum(self.memory.values()) <= MEMORY_SHARE * self.device.memory


def make_plan(
    run: RunConfig,
    zero: Zero,
    device: Device,
    ranks: int,
    link: float | None = None,
    pace: float = 1.0,
) -> Plan:
    """
    Args:
        link: bytes a second that a rank sends; by default those of the device within a node of
            eight, and of a 400 Gbit/s adapter beyond.
        pace: measured seconds of the device's work over planned ones.

    Raises:
        ConfigError: the ranks do not divide the batch.
    """
    batch, wanted = run.train.global_batch, run.train.micro_batch
    if batch % ranks:
        near = [each for each in range(1, batch + 1) if batch % each == 0]
        below = max(each for each in near if each <= ranks)
        raise ConfigError(
            f"{ranks} ranks do not divide train.global_batch {batch}; choose {below} ranks, or a "
            f"batch that is a multiple of {ranks}"
        )
    if link is None:
        link = device.link if ranks <= NODE else min(device.link, NETWORK)
    largest = _largest_micro_batch(run, zero, device, ranks)
    if wanted is not None and (batch // ranks) % wanted == 0:
        micro_batch = wanted
    else:
        micro_batch = largest or 1
    time = step_time(run, zero, device, ranks, micro_batch, link)
    return Plan(
        run,
        zero,
        device,
        ranks,
        micro_batch,
        largest,
        parameters(run.model),
        training_step_flops(run),
        rank_memory(run, zero, ranks, micro_batch, device.kind),
        host_memory(run, zero, ranks, micro_batch),
        time.at(pace),
        checkpoint_bytes(run),
    )


def fewest_ranks(
    run: RunConfig, zero: Zero, device: Device, days: float, link: float | None, pace: float
) -> Plan:
    """The plan of the fewest ranks that fit and finish within `days`.

    Raises:
        ConfigError: no number of ranks that divides the batch does.
    """
    fitting = []
    for ranks in _divisors(run.train.global_batch):
        plan = make_plan(run, zero, device, ranks, link, pace)
        if plan.fits and plan.days <= days:
            return plan
        if plan.fits:
            fitting.append(plan)
    if not fitting:
        raise ConfigError(
            f"no number of {device.name} that divides train.global_batch "
            f"{run.train.global_batch} has memory for this run; {_what_fits(plan)}"
        )
    best = min(fitting, key=lambda plan: plan.days)
    raise ConfigError(
        f"--days is {days:g}, but the fastest plan takes {best.days:.2f} days on {best.ranks} "
        f"{device.name}; allow more days, train fewer steps, or raise train.global_batch"
    )


def measured_pace(result: Any, device: Device, kind: str) -> float:
    """Measured over planned seconds of the device's work, from the JSON of `scripts/benchmark.py
    train` on one rank.

    kind: the run's `model.name`, which must be that of the measured one.

    Raises:
        ConfigError: no such JSON, several ranks, or another kind of model.
    """
    try:
        settings, seconds = result["settings"], float(result["train"]["step"])
        run = build(RunConfig, settings["run"])
        ranks, precision = int(settings["ranks"]), settings["sharding"].get("bf16", {})
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError):
        raise ConfigError(
            "--calibrate names no result of `scripts/benchmark.py train --json`; make one"
        ) from None
    if ranks != 1:
        raise ConfigError(f"--calibrate was measured on {ranks} ranks; measure on one")
    if run.model.name != kind:
        raise ConfigError(
            f"--calibrate was measured on a model of kind {run.model.name}, the plan is of "
            f"{kind}; measure one of that kind"
        )
    zero = Zero(1, 2 if precision.get("enabled") else FLOAT)
    micro_batch = run.train.micro_batch or run.train.global_batch
    planned = step_time(run, zero, device, 1, micro_batch, device.link)
    return (seconds - planned.alone) / planned.device


def reading(plan: Plan) -> dict[str, float]:
    """What loaders must give for the run not to wait: clips a second of each rank, the cores that
    decode them from H.264, and bytes a second from disk, of H.264 and of raw shards. Of latents
    the bytes alone."""
    rate = plan.clips_per_second / plan.ranks
    model = plan.run.model
    if not isinstance(model, TokenizerModelConfig):
        return {"clips/s": rate, "bytes/s": rate * model.latent.numbers * 4}
    pixels = prod(model.video_size)
    return {
        "clips/s": rate,
        "cores for H.264": rate * DECODE_SECONDS * pixels / 128**3,
        "H.264 bytes/s": rate * pixels * H264_BITS_PER_PIXEL / 8,
        "raw bytes/s": rate * pixels * 3,
    }


def lanes_of(run: RunConfig) -> int | None:
    """Lanes of the run's shards, if their index lies on this machine."""
    for dataset in run.data.shards:
        try:
            lanes = read_json(Path(dataset.path) / "index.json")["lanes"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if type(lanes) is int and lanes > 0:
            return lanes
    return None


def warnings(plan: Plan, lanes: int | None) -> Iterator[str]:
    """What would keep the run from working or from being fast, each with what helps.

    lanes: of the shards' index; None where there is none yet.
    """
    run, ranks = plan.run, plan.ranks
    if not plan.fits:
        needed = sum(plan.memory.values()) / 2**30
        yield (
            f"out of memory: a rank needs {needed:.1f} GiB of {plan.device.memory / 2**30:.0f}; "
            f"{_what_fits(plan)}"
        )
    if run.train.micro_batch is not None and plan.micro_batch != run.train.micro_batch:
        yield (
            f"train.micro_batch {run.train.micro_batch} x {ranks} ranks does not divide "
            f"train.global_batch {run.train.global_batch}; planned with {plan.micro_batch}"
        )
    if lanes is None:
        yield f"no index of shards here: {ranks} ranks must divide their lanes, {_lanes(ranks)}"
    elif lanes % ranks:
        yield (
            f"{ranks} ranks do not divide the {lanes} lanes of the shards; build them anew, "
            f"{_lanes(ranks)}"
        )
    if plan.time.exposed > 0.1 * plan.time.total:
        yield (
            f"sending takes {plan.time.communication:.2f} s an update and hides behind no more "
            "than its backward passes: use a lower ZeRO stage, larger micro-batches, fewer ranks"
            + (
                ', or "communication_data_type": "bf16"'
                if plan.zero.sent > plan.zero.number
                else ""
            )
        )
    if plan.time.host > plan.time.device:
        yield (
            f"Python needs {plan.time.host:.2f} s an update to launch what the device does in "
            f"{plan.time.device:.2f} s: use larger micro-batches, or fewer ranks"
        )


def _largest_micro_batch(run: RunConfig, zero: Zero, device: Device, ranks: int) -> int:
    """Of those that divide a rank's batch the largest that fits, or 0."""
    for micro_batch in reversed(_divisors(run.train.global_batch // ranks)):
        memory = rank_memory(run, zero, ranks, micro_batch, device.kind)
        if sum(memory.values()) <= MEMORY_SHARE * device.memory:
            return micro_batch
    return 0


def _what_fits(plan: Plan) -> str:
    """The nearest plan that works: less at once, recomputation, a higher stage, more ranks."""
    run, ranks = plan.run, plan.ranks
    if 0 < plan.largest_micro_batch < plan.micro_batch:
        return f"train.micro_batch={plan.largest_micro_batch} fits"
    tries = [(run, "")]
    recomputations: tuple[Recomputation, ...] = ("selective", True)
    for kind in recomputations:
        less = replace(run, train=replace(run.train, activation_checkpointing=kind))
        tries.append((less, f" and train.activation_checkpointing={as_yaml(kind)}"))
    stages = [replace(plan.zero, stage=stage) for stage in range(plan.zero.stage, 4)]
    for count in (ranks * 2**power for power in range(8)):
        for tried, what in tries:
            for zero in stages:
                memory = rank_memory(tried, zero, count, 1, plan.device.kind)
                if sum(memory.values()) <= MEMORY_SHARE * plan.device.memory:
                    many = f" on {count} devices" if count > ranks else ""
                    return f"ZeRO-{zero.stage}{many} with train.micro_batch=1{what} fits"
    return "no stage fits on 128 times as many devices: use zero3_offload, or a smaller model"


def _lanes(ranks: int) -> str:
    lanes = 96 if 96 % ranks == 0 else ranks
    return f"--lanes {lanes}"


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]
