"""What the checkpoints of a run cost each of its ranks to save and to load, before there is any.

The functions by which real ranks save and load (`coordtok.storage.slice_layout`) count it, on what
DeepSpeed lets each rank own. Tests hold it against engines on 1, 2 and 4 ranks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coordtok.config.schema import RunConfig
from coordtok.scaling.parameters import TOKENIZER_PARTS, is_matrix, shapes
from coordtok.storage.slice_files import Span
from coordtok.storage.slice_layout import (
    EMA_KIND,
    MASTER,
    STATE_KIND,
    Cost,
    Layout,
    load_cost,
    runs_of,
    save_cost,
    share_bytes,
)

ADAM_STATES = ("exp_avg", "exp_avg_sq")
MUON_STATES = ("momentum_buffer",)
ZERO_ALIGNMENT = 2
"""DeepSpeed pads a group of ZeRO 1 and 2 to a multiple of this many numbers a rank."""

Groups = Sequence[Mapping[str, int]]
"""The optimiser's groups: sizes of their parameters by name, in order."""
Kinds = Mapping[str, Sequence[str]]
"""What a checkpoint holds of each parameter."""


@dataclass(frozen=True)
class CheckpointCosts:
    """Of each rank, in order."""

    saved: list[Cost]
    loaded: list[Cost]
    shares: list[int]
    """Bytes of what each loading rank is to own."""


def checkpoint_costs(
    groups: Groups, kinds: Kinds, saving: tuple[int, int], loading: tuple[int, int]
) -> CheckpointCosts:
    """What it costs to save what `contents` gives and then to load it, on a number of ranks at a
    ZeRO stage each."""
    savers, loaders = (zero_layouts(groups, *each) for each in (saving, loading))
    held = runs_of(savers)
    saved = [save_cost(layout, kinds) for layout in savers]
    headers = [cost.bytes - share_bytes(layout, kinds) for cost, layout in zip(saved, savers)]
    return CheckpointCosts(
        saved,
        [load_cost(held, headers, layout, kinds) for layout in loaders],
        [share_bytes(layout, kinds) for layout in loaders],
    )


def contents(run: RunConfig) -> tuple[Groups, Kinds]:
    """The groups of the run's optimiser, and what its checkpoints hold of each parameter."""
    found = shapes(run.model)
    sizes = {name: math.prod(shape) for name, shape in found.items()}
    of_muon = {name for name in found if run.optim.name == "muon" and is_matrix(name, found[name])}
    linear_path = {name for name in found if name.startswith(TOKENIZER_PARTS["linear path"])}
    rest = found.keys() - of_muon - linear_path
    groups = [
        {name: size for name, size in sizes.items() if name in group}
        for group in (of_muon, rest, linear_path)
    ]
    average = [EMA_KIND] if run.ema.decay else []
    kinds = {
        name: [
            MASTER,
            *(STATE_KIND + state for state in (MUON_STATES if name in of_muon else ADAM_STATES)),
            *average,
        ]
        for name in found
    }
    return [group for group in groups if group], kinds


def in_words(costs: CheckpointCosts) -> tuple[str, str]:
    """What saving costs, and what loading."""
    files, read = ([cost[field] for cost in costs.loaded] for field in (0, 1))
    return (
        f"{len(costs.saved):,} files of {_sizes([cost.bytes for cost in costs.saved])}",
        f"on {len(costs.loaded):,}: a rank opens {_range(f'{min(files):,}', f'{max(files):,}')} "
        f"files and reads {_sizes(read)}, its share being {_sizes(costs.shares)}",
    )


def _sizes(sizes: Sequence[int]) -> str:
    return f"{_range(*(f'{each(sizes) / 2**20:,.1f}' for each in (min, max)))} MiB"


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def zero_layouts(groups: Sequence[Mapping[str, int]], ranks: int, stage: int) -> Sequence[Layout]:
    """What each rank owns, as DeepSpeed shares out `groups` of parameters, given by their sizes in
    the optimiser's order.

    ZeRO 1 and 2 lay a group end to end and cut it into one range a rank; ZeRO 3 cuts each parameter
    into a share a rank, rounded up.
    """
    layouts: list[dict[str, Span]] = [{} for _ in range(ranks)]
    for group in groups:
        whole = sum(group.values())
        aligned = ZERO_ALIGNMENT * ranks
        range_size = math.ceil(whole / aligned) * aligned // ranks
        offset = 0
        for name, size in group.items():
            if stage == 3:
                offset, range_size = 0, math.ceil(size / ranks)
            for rank in range(offset // range_size, math.ceil((offset + size) / range_size)):
                own = Span(rank * range_size - offset, (rank + 1) * range_size - offset)
                layouts[rank][name] = own.overlap(Span(0, size))
            offset += size
    return layouts
