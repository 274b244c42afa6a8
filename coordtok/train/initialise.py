"""Start from given weights: those of an export, a checkpoint or a run's newest one
(`train.init_from`), or those that the data decides.

The fp32 values go into the optimiser's masters themselves. Loading them into the model before the
engine is built would round them to the precision that computes.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from coordtok import distributed
from coordtok.config.load import build
from coordtok.config.models import ModelConfig
from coordtok.config.schema import RunConfig
from coordtok.errors import CheckpointError
from coordtok.pretrained.card import CONFIG, WEIGHTS
from coordtok.pretrained.read import Shapes, first_difference, read_export
from coordtok.train.checkpoint import read_state, restore_weights
from coordtok.train.checkpoint_folder import find_checkpoint
from coordtok.train.checkpoint_index import read_index
from coordtok.train.masters import Masters

FREE_TO_CHANGE = {"legacy_padding"}
"""What a model may do otherwise with the same weights."""


def initialise_from(masters: Masters, model: ModelConfig, path: str) -> None:
    """Replace the weights of a fresh engine by those at `path`; all ranks call it together."""
    checkpoint = distributed.run_on_main(lambda: _checkpoint_at(path))
    if checkpoint is None:
        initialise_with(masters, lambda: _read_export(masters, model, path))
        return

    def check() -> None:
        there = build(RunConfig, read_state(checkpoint).config).model
        _check_same_model(there, model, read_index(checkpoint).shapes, masters.shapes, path)

    distributed.run_on_main(check)
    restore_weights(checkpoint, masters)


def initialise_with(masters: Masters, read: Callable[[], dict[str, torch.Tensor]]) -> None:
    """Replace those weights of a fresh engine that `read` gives on rank 0, by parameter name and
    whole, in fp32; all ranks call it together."""
    weights: dict[str, torch.Tensor] = {}
    distributed.run_on_main(lambda: weights.update(read()))
    for name in distributed.broadcast(list(weights)):
        value = distributed.broadcast_tensor(weights.pop(name, None), masters.shapes[name])
        masters.write(name, value)
    masters.publish()


def _checkpoint_at(path: str) -> Path | None:
    """The checkpoint that `path` means, or None if an export lies there."""
    folder = Path(path)
    if (folder / CONFIG).is_file() or (folder / WEIGHTS).is_file():
        return None
    try:
        return find_checkpoint(folder)
    except CheckpointError as error:
        raise CheckpointError(f"train.init_from={error}, or an export") from None


def _read_export(masters: Masters, model: ModelConfig, path: str) -> dict[str, torch.Tensor]:
    card, tensors = read_export(Path(path))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    _check_same_model(card.model, model, shapes, masters.shapes, path)
    return tensors


def _check_same_model(
    there: ModelConfig, here: ModelConfig, found: Shapes, wanted: Shapes, path: str
) -> None:
    """Shapes alone would not show it: heads and the axes of patches do not show in them."""
    stored, given = asdict(there), asdict(here)
    names = [n for n in given if stored.get(n) != given[n] and n not in FREE_TO_CHANGE]
    if names:
        difference = f"model.{names[0]} is {stored.get(names[0])} there and {given[names[0]]} here"
    else:
        wanted = {name: tuple(shape) for name, shape in wanted.items()}
        difference = first_difference(found, wanted) or ""
    if difference:
        raise CheckpointError(
            f"train.init_from={path} is of another model: {difference}; give it the same model "
            "section"
        )
