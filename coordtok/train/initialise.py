"""Start from given weights: those of an export, a checkpoint or a run's newest one
(`train.init_from`), or those that the data decides.

The fp32 values go into the optimiser's masters themselves. Loading them into the model before the
engine is built would round them to the precision that computes.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from coordtok import distributed
from coordtok.config.load import build
from coordtok.config.models import ModelConfig
from coordtok.config.schema import RunConfig
from coordtok.errors import CheckpointError
from coordtok.pretrained.card import CONFIG, WEIGHTS
from coordtok.pretrained.read import first_difference, read_export
from coordtok.train.checkpoint import read_state
from coordtok.train.checkpoint_folder import find_checkpoint
from coordtok.train.masters import Masters, read_masters

FREE_TO_CHANGE = {"legacy_padding"}
"""What a model may do otherwise with the same weights."""


class Weights(NamedTuple):
    """A model's config and its tensors by name."""

    model: ModelConfig
    tensors: dict[str, torch.Tensor]


def initialise_from(engine: Any, path: str) -> None:
    """Replace the weights of a fresh engine by those at `path`; all ranks call it together."""

    def read() -> dict[str, torch.Tensor]:
        found = read_weights(path)
        _check_same_model(found, engine.module.config, Masters(engine).shapes, path)
        return found.tensors

    initialise_with(engine, read)


def initialise_with(engine: Any, read: Callable[[], dict[str, torch.Tensor]]) -> None:
    """Replace those weights of a fresh engine that `read` gives on rank 0, by parameter name and
    whole, in fp32; all ranks call it together."""
    masters = Masters(engine)
    weights: dict[str, torch.Tensor] = {}
    distributed.run_on_main(lambda: weights.update(read()))
    for name in distributed.broadcast(list(weights)):
        value = distributed.broadcast_tensor(weights.pop(name, None), masters.shapes[name])
        masters.write(name, value)


def read_weights(path: str) -> Weights:
    """The weights of an export, a checkpoint or a run's newest checkpoint (as trained, fp32)."""
    folder = Path(path)
    if (folder / CONFIG).is_file() or (folder / WEIGHTS).is_file():
        card, tensors = read_export(folder)
        return Weights(card.model, tensors)
    try:
        checkpoint = find_checkpoint(folder)
    except CheckpointError as error:
        raise CheckpointError(f"train.init_from={error}, or an export") from None
    run = build(RunConfig, read_state(checkpoint).config)
    return Weights(run.model, read_masters(checkpoint))


def _check_same_model(
    found: Weights, config: ModelConfig, shapes: dict[str, torch.Size], path: str
) -> None:
    """Shapes alone would not show it: heads and the axes of patches do not show in them."""
    there, here = asdict(found.model), asdict(config)
    names = [name for name in here if there.get(name) != here[name] and name not in FREE_TO_CHANGE]
    if names:
        difference = f"model.{names[0]} is {there.get(names[0])} there and {here[names[0]]} here"
    else:
        stored = {name: tuple(tensor.shape) for name, tensor in found.tensors.items()}
        wanted = {name: tuple(shape) for name, shape in shapes.items()}
        difference = first_difference(stored, wanted) or ""
    if difference:
        raise CheckpointError(
            f"train.init_from={path} is of another model: {difference}; give it the same model "
            "section"
        )
