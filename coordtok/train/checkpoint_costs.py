"""What the checkpoints of a run will cost each of its ranks, before there is any."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from coordtok.config.schema import RunConfig
from coordtok.config.training import OptimConfig
from coordtok.storage.manifests import FileFacts
from coordtok.train.checkpoint_index import EMA_KIND, MASTER, STATE_KIND, Holding, Index
from coordtok.train.checkpoint_plan import Cost, Plan, plan, zero_layouts
from coordtok.train.optim import OPTIMIZERS, parameter_groups
from coordtok.train.tasks.kinds import task_class

ADAM_STATES = ("exp_avg", "exp_avg_sq")
MUON_STATES = ("momentum_buffer",)


@dataclass(frozen=True)
class Ranks:
    """How many there are, and the ZeRO stage by which they share a model."""

    number: int
    stage: int

    def __str__(self) -> str:
        return f"{self.number:,} ranks at ZeRO {self.stage}"


@dataclass(frozen=True)
class Contents:
    """What a checkpoint of a run holds: per parameter its shape, and what there is of it."""

    optimizer: str
    groups: list[dict[str, int]]
    shapes: dict[str, tuple[int, ...]]
    kinds: dict[str, list[str]]

    @property
    def numbers(self) -> int:
        return sum(
            size * len(self.kinds[name]) for each in self.groups for name, size in each.items()
        )


def contents_of(run: RunConfig) -> Contents:
    """Of the run's model, which is made without memory for its weights."""
    with torch.device("meta"):
        model = task_class(run.model).model_class(run.model)
    groups = list(named_groups(model, run.optim))
    average = [EMA_KIND] if run.ema.decay else []
    kinds = {
        name: [MASTER, *(STATE_KIND + state for state in states), *average]
        for group, states in groups
        for name in group
    }
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    optimizer = OPTIMIZERS[run.optim.name].__name__
    return Contents(optimizer, [group for group, _ in groups], shapes, kinds)


def named_groups(
    model: nn.Module, optim: OptimConfig
) -> Iterator[tuple[dict[str, int], tuple[str, ...]]]:
    """The optimiser's groups: sizes of their parameters by name, in order, and the states that the
    optimiser keeps for each."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in parameter_groups(model, optim):
        sizes = {names[id(parameter)]: parameter.numel() for parameter in group["params"]}
        yield sizes, MUON_STATES if group["matrices"] else ADAM_STATES


def plan_run(contents: Contents, saving: Ranks, loading: Ranks) -> tuple[Plan, int]:
    """What it costs `saving` ranks to save and then `loading` ranks to load; bytes of the index."""
    layouts = [zero_layouts(contents.groups, each.number, each.stage) for each in (saving, loading)]
    found = plan(contents.kinds, *layouts)
    counts = {name: {"step": 1e6} for name in contents.kinds}
    holdings = [
        Holding(FileFacts(cost.bytes, "0" * 64), layout, contents.kinds, counts)
        for cost, layout in zip(found.saved, layouts[0])
    ]
    return found, len(Index.of(contents.optimizer, contents.shapes, holdings).to_json())


def as_text(contents: Contents, saving: Ranks, loading: Ranks) -> str:
    """Three lines for people."""
    found, index = plan_run(contents, saving, loading)
    kinds = sorted({kind for kinds in contents.kinds.values() for kind in kinds})
    share = max(found.shares)
    return "\n".join(
        [
            f"holds   {_size(4 * contents.numbers)} of {len(contents.kinds):,} parameters: "
            f"{', '.join(kinds)}",
            f"saving  {saving}: {len(found.saved):,} files, {_bytes(found.saved)} each, and an "
            f"index of {_size(index)}",
            f"loading {loading}: each opens {_range([cost.files for cost in found.loaded])} files "
            f"and reads {_bytes(found.loaded)} of them, for a share of up to {_size(share)}",
        ]
    )


def _bytes(costs: list[Cost]) -> str:
    low, high = (_size(pick(cost.bytes for cost in costs)) for pick in (min, max))
    return low if low == high else f"{low} to {high}"


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.1f} kB"
