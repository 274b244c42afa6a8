"""What a checkpoint knows: the state of a run beside its weights, and how both come back.

    step_00001000/   rank_*.safetensors of every rank, index.json, state.json, and manifest.json
                     once all of them are on the disk (coordtok.train.checkpoint_index)

Saving is `coordtok.train.saver`.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from coordtok import distributed
from coordtok.config.load import build
from coordtok.errors import CheckpointError, ConfigError
from coordtok.storage.files import replace_text
from coordtok.storage.json_files import read_json
from coordtok.storage.manifests import measure, write_manifest
from coordtok.storage.slice_layout import EMA_KIND, MASTER, STATE_KIND, Cost
from coordtok.train.checkpoint_index import (
    INDEX,
    MANIFEST,
    STATE_FILE,
    Index,
    check_facts,
    read_index,
)
from coordtok.train.ema import EMA
from coordtok.train.masters import Masters
from coordtok.train.slices import Slice, fill_slices


@dataclass(frozen=True)
class TrainState:
    """What a checkpoint knows beside weights, optimiser and EMA; plain JSON."""

    step: int
    seconds: float
    """Training time so far."""
    loader: dict[str, Any]
    """Position and lane cursors of all ranks."""
    data: list[dict[str, Any]]
    """Path, weight, fingerprint, number of samples and frames per second of each dataset."""
    skipped: int
    """Unreadable samples passed over so far."""
    config: dict[str, Any]
    world_size: int
    zero_stage: int
    precision: str
    forward_check: float
    """Loss of the weights on a fixed batch, compared after loading."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the task fixed when the run began."""


def read_state(checkpoint: Path) -> TrainState:
    """The state in a complete checkpoint; raises `CheckpointError`."""
    check_facts(checkpoint)
    try:
        return build(TrainState, read_json(checkpoint / STATE_FILE))
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{checkpoint} has no readable {STATE_FILE}: {error}") from error


def write_facts(folder: Path, index: Index, state: Mapping[str, Any]) -> None:
    """Make `folder`, in which all files of slices lie, a complete checkpoint; raises OSError."""
    replace_text(folder / INDEX, index.to_json())
    replace_text(folder / STATE_FILE, json.dumps(state))
    facts = {name: measure(folder / name) for name in (INDEX, STATE_FILE)}
    write_manifest(folder / MANIFEST, facts)


def restore(checkpoint: Path, masters: Masters, ema: EMA | None) -> Cost:
    """Take weights, optimiser and average from a checkpoint of any ranks, stage and precision; all
    ranks call it together. What this rank opened and read of its files of slices.

    Raises:
        DamagedCheckpoint: what a rank read is not as it was written.
        CheckpointError: it is of another model or optimiser, or has no average.
    """
    index = distributed.together(lambda: read_index(checkpoint))
    optimizer = type(masters.optimizer).__name__
    if index.optimizer != optimizer:
        raise CheckpointError(
            f"{checkpoint} has the state of {index.optimizer}, and this run uses {optimizer}; take "
            "its weights alone with train.init_from"
        )
    if ema is not None and not index.has(EMA_KIND):
        raise CheckpointError(
            f"{checkpoint} holds no EMA; set ema.decay=0 or start a new run with train.init_from"
        )
    if index.shapes != {name: tuple(shape) for name, shape in masters.shapes.items()}:
        raise CheckpointError(f"{checkpoint} is of another model than its config says")
    states = {
        name: [kind.removeprefix(STATE_KIND) for kind in each.kinds if kind.startswith(STATE_KIND)]
        for name, each in index.parameters.items()
    }
    counts = {name: each.counts for name, each in index.parameters.items()}

    def fill() -> Cost:
        masters.make_states(states, counts)
        return fill_slices(slices_of(masters, ema), checkpoint, index)

    cost = distributed.together(fill)
    masters.publish()
    return cost


def slices_of(masters: Masters, ema: EMA | None) -> dict[str, Mapping[str, Slice]]:
    """All that this rank owns and a checkpoint holds, by kind and parameter."""
    states = {STATE_KIND + name: slices for name, slices in masters.states().items()}
    averages = {} if ema is None else {EMA_KIND: ema.slices}
    return {MASTER: masters.slices(), **states, **averages}


def restore_weights(checkpoint: Path, masters: Masters) -> None:
    """As `restore`, of the weights alone."""
    index = distributed.together(lambda: read_index(checkpoint))
    wanted = {MASTER: masters.slices()}
    distributed.together(lambda: fill_slices(wanted, checkpoint, index))
    masters.publish()


def read_whole(checkpoint: Path, kind: str = MASTER) -> dict[str, torch.Tensor]:
    """All of one kind in a checkpoint, whole and fp32: the weights as trained (MASTER) or averaged
    (EMA_KIND), or a state of the optimiser.

    Raises:
        DamagedCheckpoint: it is not as it was written.
    """
    index = read_index(checkpoint)
    shapes = {name: each.shape for name, each in index.parameters.items() if kind in each.kinds}
    whole = {name: Slice(0, torch.empty(math.prod(shape))) for name, shape in shapes.items()}
    fill_slices({kind: whole}, checkpoint, index)
    return {name: whole[name].values.view(shape) for name, shape in shapes.items()}
