"""From a checkpoint of the former format, DeepSpeed's own files, to one of this.

    *_optim_states.pt   every rank's masters and optimiser states: pickles
    *_model_states.pt   beside the weights that compute, the shapes of the parameters: pickles
    ema_rank_*.safetensors   every rank's averages

Reading a pickle can run any code that its writer chose. Training does not import this module.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tqdm import tqdm

from coordtok.config.load import build
from coordtok.config.schema import RunConfig
from coordtok.errors import CheckpointError
from coordtok.storage.files import check_new, whole_folder
from coordtok.storage.json_files import read_json
from coordtok.storage.manifests import first_damage, read_manifest
from coordtok.storage.slice_files import Span
from coordtok.storage.slice_layout import EMA_KIND, MASTER, STATE_KIND, file_name
from coordtok.train.checkpoint import write_facts
from coordtok.train.checkpoint_folder import find_checkpoint
from coordtok.train.checkpoint_index import MANIFEST, STATE_FILE, Holding, Index
from coordtok.train.masters import Position
from coordtok.train.optim import OPTIMIZERS
from coordtok.train.slices import Slice, write_file

Positions = dict[str, Position]


def convert_checkpoint(source: Path, target: Path, *, progress: bool = False) -> Path:
    """Write the checkpoint at `source` (or a run's newest one) to the new folder `target`, a rank's
    file at a time; the checkpoint that was read.

    Raises:
        CheckpointError: it is none of the former format, or damaged.
        DataError: `target` cannot be written, or is there already.
    """
    checkpoint = find_checkpoint(source)
    _check_former(checkpoint)
    check_new(target)
    state = read_json(checkpoint / STATE_FILE)
    files = _sorted_by_rank(checkpoint.glob("*_optim_states.pt"))
    groups = _load(min(checkpoint.glob("*_model_states.pt")))["param_shapes"]
    shapes = {name: tuple(shape) for group in groups for name, shape in group.items()}
    holdings: list[Holding] = []
    with whole_folder(target) as folder:
        for rank, path in enumerate(tqdm(files, "files", unit="", disable=not progress)):
            stored = _load(path)["optimizer_state_dict"]
            positions = (
                _shares(groups, rank, len(files))
                if "fp32_flat_groups" in stored
                else _fragments(stored, [holding.layout for holding in holdings])
            )
            holdings.append(_write(stored, positions, checkpoint, folder / file_name(rank), rank))
        run = build(RunConfig, state["config"])
        write_facts(folder, Index.of(OPTIMIZERS[run.optim.name].__name__, shapes, holdings), state)
    return checkpoint


def _check_former(checkpoint: Path) -> None:
    try:
        manifest = read_manifest(checkpoint / MANIFEST)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint}: {error}; name another checkpoint") from None
    if not any(name.endswith("_optim_states.pt") for name in manifest):
        raise CheckpointError(f"{checkpoint} is not of the former format; train with it as it is")
    damage = first_damage(checkpoint, manifest.items())
    if damage:
        raise CheckpointError(f"{checkpoint} is damaged ({damage}); name another checkpoint")


def _sorted_by_rank(paths: Iterator[Path]) -> list[Path]:
    """Of names that hold `_rank_12_mp_`, without leading zeros."""
    return sorted(paths, key=lambda path: int(path.name.partition("_rank_")[2].partition("_")[0]))


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", mmap=True, weights_only=False)


def _shares(groups: list[Mapping[str, torch.Size]], rank: int, ranks: int) -> Positions:
    """What lies where in a rank's flat tensors under ZeRO 3."""
    positions = {}
    for partition, group in enumerate(groups):
        offset = 0
        for name, shape in group.items():
            size = math.prod(shape)
            share = math.ceil(size / ranks)
            span = Span(0, size).overlap(Span(rank * share, (rank + 1) * share))
            if span.size:
                positions[name] = Position(partition, offset, span)
            offset += share
    return positions


def _fragments(stored: Mapping[str, Any], earlier: list[Mapping[str, Span]]) -> Positions:
    """The same under ZeRO 1 and 2, where parts of a parameter follow those that `earlier` ranks
    hold."""
    positions = {}
    for partition, fragments in enumerate(stored["param_slice_mappings"]):
        for name, fragment in fragments.items():
            start = sum(layout[name].size for layout in earlier if name in layout)
            span = Span(start, start + fragment.numel)
            positions[name] = Position(partition, fragment.start, span)
    return positions


def _write(
    stored: Mapping[str, Any], positions: Positions, checkpoint: Path, path: Path, rank: int
) -> Holding:
    """One rank's file."""
    flat = stored.get("fp32_flat_groups") or stored["single_partition_of_fp32_groups"]
    optimizer = stored.get("base_optimizer_state") or stored["optimizer_state_dict"]
    slices: dict[str, dict[str, Slice]] = {MASTER: {}}
    counts: dict[str, dict[str, float]] = {}
    for name, position in positions.items():
        slices[MASTER][name] = position.view(flat[position.partition])
        for state, value in optimizer["state"].get(position.partition, {}).items():
            if torch.is_tensor(value) and value.numel() > 1:
                slices.setdefault(STATE_KIND + state, {})[name] = position.view(value)
            else:
                counts.setdefault(name, {})[state] = float(value)
    average = checkpoint / f"ema_rank_{rank:05d}.safetensors"
    if average.is_file():
        slices[EMA_KIND] = dict(_averages(average))
    return write_file(slices, counts, path)


def _averages(path: Path) -> Iterator[tuple[str, Slice]]:
    with safe_open(path, framework="pt") as file:
        for name, start in json.loads(file.metadata()["starts"]).items():
            yield name, Slice(start, file.get_tensor(name))
