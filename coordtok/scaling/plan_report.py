"""A plan in words, as a table beside others, and as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from coordtok.scaling.checkpoints import CheckpointCosts, in_words
from coordtok.scaling.plan import Plan, reading, warnings

_GIB = 2.0**30


def describe(plan: Plan, lanes: int | None, costs: CheckpointCosts | None = None) -> str:
    """All of one plan, for people, and what its checkpoints cost to save and to load."""
    return "\n".join(_lines(plan, lanes, costs)) + "\n"


def side_by_side(plans: Sequence[Plan]) -> str:
    """A row for each plan."""
    head = [
        "config", "ZeRO", "GPUs", "micro", "GiB of a rank", "step, s", "clips/s", "MFU", "days",
        "GPU-hours",
    ]  # fmt: skip
    rows = [head, *(_row(plan) for plan in plans)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths)) + "\n" for row in rows
    )


def as_dict(plan: Plan, lanes: int | None, costs: CheckpointCosts | None = None) -> dict[str, Any]:
    """As `describe`, for programs: bytes, seconds, operations; files and bytes of each rank."""
    return {
        "run_dir": plan.run.run_dir,
        "deepspeed": plan.zero.source,
        "device": plan.device.name,
        "gpus": plan.ranks,
        "parameters": dict(plan.parameters),
        "flops_per_step": plan.flops.total,
        "micro_batch": plan.micro_batch,
        "largest_micro_batch": plan.largest_micro_batch,
        "accumulation": plan.accumulation,
        "memory": dict(plan.memory),
        "host_memory": plan.host_memory,
        "fits": plan.fits,
        "time": {**vars(plan.time), "total": plan.time.total},
        "clips_per_second": plan.clips_per_second,
        "mfu": plan.mfu,
        "reading": reading(plan),
        "checkpoint": plan.checkpoint,
        "checkpoint_costs": None if costs is None else vars(costs),
        "days": plan.days,
        "gpu_hours": plan.device_hours,
        "kilowatt_hours": plan.kilowatt_hours,
        "warnings": list(warnings(plan, lanes)),
    }


def _lines(plan: Plan, lanes: int | None, costs: CheckpointCosts | None) -> Iterator[str]:
    run, time = plan.run, plan.time
    total = sum(plan.parameters.values())
    yield f"parameters      {total / 1e6:,.1f} M"
    yield from _parts({name: n / 1e6 for name, n in plan.parameters.items()}, " M")
    flops = plan.flops
    clips = run.train.global_batch
    yield f"operations      {flops.total / 1e12:,.2f} TFLOP an update of {clips} clips"
    yield from _parts({name: each / 1e12 for name, each in vars(flops).items()}, " TFLOP")
    memory = sum(plan.memory.values())
    room = plan.device.memory / _GIB
    yield f"memory          {memory / _GIB:,.1f} GiB of {room:,.0f} on each {plan.device.name}"
    yield from _bars(plan.memory, plan.device.memory)
    if plan.host_memory:
        yield f"  on the host   {plan.host_memory / _GIB:,.1f} GiB for each rank"
    yield (
        f"batch           {clips} clips = {plan.ranks} ranks x micro-batch "
        f"{plan.micro_batch} x {plan.accumulation}; {plan.largest_micro_batch or 'none'} would fit"
    )
    yield f"update          {_seconds(time.total)}, {plan.clips_per_second:,.1f} clips/s"
    yield from _parts({name: 1000 * each for name, each in vars(time).items()}, " ms")
    yield f"MFU             {100 * plan.mfu:.0f} % of {_rate(plan) / 1e12:,.3g} TFLOP/s a device"
    needs = ", ".join(f"{_short(value)} {name}" for name, value in reading(plan).items())
    yield f"reading         each rank: {needs}"
    yield (
        f"checkpoint      {plan.checkpoint / _GIB:,.1f} GiB, "
        f"{plan.checkpoint / plan.ranks / _GIB:,.2f} GiB from each rank"
    )
    if costs is not None:
        yield "  saved {}\n  loaded {}".format(*in_words(costs))
    yield (
        f"whole run       {run.train.steps:,} updates: {_days(plan.days)}, "
        f"{plan.device_hours:,.0f} device hours, {plan.kilowatt_hours:,.0f} kWh"
    )
    for warning in warnings(plan, lanes):
        yield f"warning         {warning}"


def _row(plan: Plan) -> list[str]:
    return [
        plan.run.run_dir.removeprefix("runs/"),
        str(plan.zero.stage),
        str(plan.ranks),
        str(plan.micro_batch),
        f"{sum(plan.memory.values()) / _GIB:.1f}" + ("" if plan.fits else " !"),
        f"{plan.time.total:.3f}",
        f"{plan.clips_per_second:.1f}",
        f"{100 * plan.mfu:.0f} %",
        f"{plan.days:.1f}",
        f"{plan.device_hours:,.0f}",
    ]


def _parts(values: Mapping[str, float], unit: str) -> Iterator[str]:
    for name, value in values.items():
        if value:
            yield f"  {name:<26}{value:>14,.2f}{unit}"


def _bars(memory: Mapping[str, float], whole: float) -> Iterator[str]:
    for name, value in memory.items():
        if value:
            bar = "#" * max(1, round(40 * value / whole))
            yield f"  {name:<26}{value / _GIB:>14,.2f} GiB {bar}"


def _rate(plan: Plan) -> float:
    return plan.device.bf16 if plan.zero.number == 2 else plan.device.fp32


def _short(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.1f} ms"


def _days(value: float) -> str:
    return f"{value:,.1f} days" if value >= 2 else f"{24 * value:,.1f} hours"
