"""Tables of what plans say beside what torch, the allocator, DeepSpeed and the clock say.

Each is a list of figures by formula and as found, with the error that is aimed at.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch

from coordtok.benchmarks.counted import built, counted_flops, kept_bytes
from coordtok.benchmarks.plan_rank import Case, measure
from coordtok.benchmarks.table import table
from coordtok.config.load import load_config, preset_names
from coordtok.config.schema import RunConfig
from coordtok.progress import ProgressBar
from coordtok.scaling.activations import activation_bytes
from coordtok.scaling.collectives import messages
from coordtok.scaling.devices import Device, device_named
from coordtok.scaling.flops import training_step_flops
from coordtok.scaling.memory import Zero, rank_memory
from coordtok.scaling.parameters import shapes
from coordtok.scaling.times import StepTime, step_time
from coordtok.train.engine import rank_batch


@dataclass(frozen=True)
class Row:
    name: str
    planned: float
    found: float
    spread: float = 0.0
    """Largest minus smallest of repeats, over what was found."""

    @property
    def error(self) -> float:
        return self.planned / self.found - 1 if self.found else float(self.planned != 0)


@dataclass(frozen=True)
class Table:
    name: str
    unit: str
    size: float
    """Of the unit."""
    aim: float
    """Error of each row, or of the median one."""
    rows: Sequence[Row]
    of_median: bool = False
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def error(self) -> float:
        """Of the worst row, or the median one."""
        errors = [abs(row.error) for row in self.rows]
        return statistics.median(errors) if self.of_median else max(errors)

    @property
    def holds(self) -> bool:
        return self.error <= self.aim

    def text(self) -> str:
        spread = any(row.spread for row in self.rows)
        head = [self.name, f"planned, {self.unit}", "found", "error", *["spread"] * spread]
        body = [
            [
                row.name,
                f"{row.planned / self.size:,.4g}",
                f"{row.found / self.size:,.4g}",
                f"{100 * row.error:+.1f} %",
                *[f"{100 * row.spread:.0f} %"] * spread,
            ]
            for row in self.rows
        ]
        which = "median" if self.of_median else "largest"
        verdict = "holds" if self.holds else "DOES NOT HOLD"
        said = f"{which} error {100 * self.error:.1f} %, at most {100 * self.aim:.0f} %: {verdict}"
        return "\n".join([table([head, *body]), said, *self.notes]) + "\n"

    def as_dict(self) -> dict[str, Any]:
        rows = [{**vars(row), "error": row.error} for row in self.rows]
        return {
            "rows": rows, "aim": self.aim, "error": self.error, "of_median": self.of_median,
            "holds": self.holds, "notes": list(self.notes),
        }  # fmt: skip


def check(names: Sequence[str]) -> Iterator[tuple[str, Table]]:
    """The tables of those names, one after another."""
    for name in names:
        yield name, TABLES[name]()


def _presets(name: str, row: Callable[[str], Row]) -> list[Row]:
    return [row(preset) for preset in ProgressBar(preset_names(), desc=name, unit="preset")]


def _parameters() -> Table:
    def row(preset: str) -> Row:
        model = load_config(preset).model
        planned = dict(shapes(model))
        found = {name: tuple(each.shape) for name, each in built(model).named_parameters()}
        differing = planned.items() ^ found.items()
        note = f" ({len(differing)} shapes differ)" if differing else ""
        return Row(
            f"{preset}{note}", sum(map(prod, planned.values())), sum(map(prod, found.values()))
        )

    return Table("parameters", "M", 1e6, 0.0, _presets("parameters", row))


def _flops() -> Table:
    def row(preset: str) -> Row:
        run = load_config(preset)
        step = training_step_flops(run)
        planned = (step.total - step.optimizer) / run.train.global_batch
        return Row(preset, planned, counted_flops(run))

    return Table("FLOPs of a clip", "GFLOP", 1e9, 0.01, _presets("FLOPs", row))


def _activations() -> Table:
    def row(preset: str) -> Row:
        run = load_config(preset, ["train.activation_checkpointing=false"])
        # The linear path keeps copies of its bfloat16 weights, once for all clips: not of a clip.
        dtype = torch.float32 if getattr(run.model, "linear_path", False) else torch.bfloat16
        return Row(preset, activation_bytes(run, dtype.itemsize), kept_bytes(run, dtype))

    return Table("kept for backward", "MiB a clip", 2**20, 0.05, _presets("activations", row))


BUCKET = 20_000_000
"""Numbers of a bucket of gradients here; by default it would hide the rest of small models."""
_ON_NOISE = ("data.workers=0", "wandb.mode=disabled")


def _case(config: str, stage: int, bf16: bool, *overrides: str, **zero: float) -> Case:
    section = {"stage": stage, "reduce_bucket_size": BUCKET, **zero}
    return Case(
        config,
        (*overrides, *_ON_NOISE),
        {
            "bf16": {"enabled": bf16},
            "data_types": {"grad_accum_dtype": "auto"},
            "communication_data_type": "fp32",
            "zero_optimization": section,
        },
    )


def memory_cases() -> list[Case]:
    if torch.cuda.is_available():
        eight = ("train.global_batch=8", "train.micro_batch=8")
        return [
            _case("tokenizer_b", 1, True, *eight),
            _case("tokenizer_l", 1, True, *eight),
            _case("tokenizer_l", 3, True, "train.global_batch=16", "train.micro_batch=8"),
            _case("dit_l", 2, True, "train.global_batch=32", "train.micro_batch=32"),
        ]
    small = ("train.global_batch=2", "train.micro_batch=null")
    batch = (*small, "train.points=256")
    return [
        _case("tokenizer_tiny", 1, False, *batch),
        _case("tokenizer_tiny", 1, True, "train.global_batch=4", "train.micro_batch=1"),
        _case("tokenizer_s", 2, True, *batch),
        _case("tokenizer_s", 3, False, *batch, reduce_bucket_size=1_000_000),
        _case("dit_tiny", 3, True, "train.global_batch=16"),
        _case("dit_s", 1, False, *small, reduce_bucket_size=1_000_000),
    ]


def _memory() -> Table:
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    cases = memory_cases()
    rows = []
    for case, found in zip(cases, measure("memory", cases, 1, 1, kind == "cuda")):
        run = _run(case)
        memory = rank_memory(run, _zero(case), 1, rank_batch(run, 1), kind)
        rows.append(Row(case.name, sum(memory.values()), found))
    note = "found: " + ("peak of the GPU's allocator" if kind == "cuda" else "traced allocations")
    return Table("memory of a rank", "MiB", 2**20, 0.1, rows, notes=[note])


def message_cases() -> list[Case]:
    """One for each stage, a reuse distance of nothing, and odd sizes that are padded."""
    batch = ("train.global_batch=4", "train.points=16", "model.dim=132", "model.heads=4")
    half = (*batch, "train.micro_batch=1")
    return [
        _case("tokenizer_tiny", 1, True, *half),
        _case("tokenizer_tiny", 2, False, *half),
        _case("tokenizer_tiny", 3, False, *half),
        _case("tokenizer_tiny", 3, True, *batch, stage3_param_persistence_threshold=1000),
        _case(
            "tokenizer_tiny",
            3,
            False,
            *batch,
            stage3_param_persistence_threshold=1000,
            stage3_max_reuse_distance=0,
            stage3_prefetch_bucket_size=0,
        ),
        _case("dit_tiny", 3, True, "train.global_batch=2", "optim.name=muon"),
    ]


def _messages() -> Table:
    cases, ranks = message_cases(), 2
    rows = []
    for case, found in zip(cases, measure("messages", cases, ranks, 1, False)):
        run = _run(case)
        passes = run.train.global_batch // (ranks * rank_batch(run, ranks))
        planned = messages(run, _zero(case), ranks, passes)
        for name, size in found.items():
            if size or planned.get(name):
                rows.append(Row(f"{case.name}: {name}", planned.get(name, 0.0), size))
    note = "found: DeepSpeed's comms logger on two ranks over gloo, norms of a few bytes left out"
    return Table("sent for an update", "MB", 1e6, 0.0, rows, notes=[note])


def time_cases() -> list[Case]:
    """The first gives what Python takes, the second the pace or how slow memory is."""
    if torch.cuda.is_available():
        batch = ("train.global_batch=16", "train.micro_batch=16")
        return [
            _case("dit_tiny", 1, True, "train.global_batch=1"),
            _case("tokenizer_b", 1, True, *batch),
            _case("tokenizer_l", 1, True, *batch),
            _case("tokenizer_b", 1, True, "train.global_batch=32", "train.micro_batch=16"),
            _case("dit_l", 1, True, "train.global_batch=64"),
        ]
    return [
        _case("dit_tiny", 1, False, "train.global_batch=1", "model.dim=32"),
        _case("tokenizer_tiny", 1, False, "train.global_batch=4", "train.points=256"),
        _case("tokenizer_tiny", 1, False, "train.global_batch=8", "train.points=1024"),
        _case("tokenizer_tiny", 1, False, "train.global_batch=4", "model.dim=256"),
        _case(
            "tokenizer_s",
            1,
            False,
            "train.global_batch=2",
            "train.points=512",
            "train.micro_batch=null",
        ),
        _case("dit_tiny", 1, False, "train.global_batch=16"),
        _case("dit_s", 1, False, "train.global_batch=4", "train.micro_batch=null"),
        _case("quickstart", 3, False, "model.linear_path=false"),
        _case("tokenizer_tiny", 2, False, "train.global_batch=8", "train.micro_batch=2"),
    ]


_TURNS = 5


def _time() -> Table:
    on_gpu = torch.cuda.is_available()
    cases = time_cases()
    *taken, probes = measure("seconds", cases, 1, _TURNS, on_gpu)
    device = probed = _probed(probes, on_gpu)
    smallest = _planned(cases[0], device)
    launches = (smallest.host + smallest.alone) / device.python
    python = (statistics.median(taken[0]) - (0.0 if on_gpu else smallest.device)) / launches
    device = replace(device, python=max(0.0, python))
    measured = statistics.median(taken[1])
    if on_gpu:
        reference = _planned(cases[1], device)
        pace = (measured - reference.alone) / (reference.total - reference.alone)
        found_by = f"pace {pace:.2f}"
    else:
        pace, device = 1.0, _slower_memory(cases[1], device, measured)
        found_by = f"{device.bandwidth / 1e9:.1f} GB/s between products"
    rows = []
    for case, seconds in list(zip(cases, taken))[2:]:
        planned = _planned(case, device).at(pace)
        found = statistics.median(seconds)
        rows.append(Row(case.name, planned.total, found, (max(seconds) - min(seconds)) / found))
    rates = f"{device.fp32 / 1e9:,.0f} GFLOP/s in float32, {device.bf16 / 1e9:,.0f} in bfloat16"
    notes = [
        f"probes beside them: {rates}, copies at {probed.bandwidth / 1e9:,.1f} GB/s",
        f"calibrated: {1e6 * device.python:.1f} µs of Python a kernel by {cases[0].name}, "
        f"{found_by} by {cases[1].name}",
        f"found: medians of {_TURNS} turns of two updates, all configs by turns",
    ]
    return Table("an update", "ms", 1e-3, 0.15, rows, of_median=True, notes=notes)


def _slower_memory(case: Case, device: Device, seconds: float) -> Device:
    """With the bandwidth at which an update of `case` takes so long: on a CPU what lies between
    products is many small kernels on fresh memory, far from a large copy, while products run as the
    probe's do."""
    low, high = device.bandwidth / 100, device.bandwidth
    for _ in range(30):
        middle = math.sqrt(low * high)
        if _planned(case, replace(device, bandwidth=middle)).total > seconds:
            low = middle
        else:
            high = middle
    return replace(device, bandwidth=high)


def _probed(probes: Sequence[dict[str, float]], on_gpu: bool) -> Device:
    """This machine, as a device of the catalogue is described."""
    best = {name: statistics.median(each[name] for each in probes) for name in probes[0]}
    base = device_named("h100-80g" if on_gpu else "cpu-2")
    return replace(
        base, bf16=best["bf16"], fp32=best["fp32"], bandwidth=best["bandwidth"],
        launch=best["launch"] if on_gpu else 0.0, product_share=1.0,
    )  # fmt: skip


def _planned(case: Case, device: Device) -> StepTime:
    run = _run(case)
    return step_time(run, _zero(case), device, 1, rank_batch(run, 1), device.link)


def _run(case: Case) -> RunConfig:
    return load_config(case.config, case.overrides)


def _zero(case: Case) -> Zero:
    return Zero.of(case.sharding, "the case")


TABLES: dict[str, Callable[[], Table]] = {
    "parameters": _parameters,
    "flops": _flops,
    "activations": _activations,
    "memory": _memory,
    "messages": _messages,
    "time": _time,
}
