"""Start from given weights (`train.init_from`): an export, a checkpoint, or a run's newest one.

The fp32 values go into the optimiser's masters themselves. Loading them into the model before the
engine is built would round them to the precision that computes.
"""

from dataclasses import asdict
from typing import Any

import torch

from coordtok import distributed
from coordtok.config.schema import ModelConfig
from coordtok.errors import CheckpointError
from coordtok.pretrained.read import first_difference
from coordtok.train.masters import Masters
from coordtok.train.weights import Weights, read_weights

FREE_TO_CHANGE = {"legacy_padding"}
"""What a model may do otherwise with the same weights."""


def initialise_from(engine: Any, path: str) -> None:
    """Replace the weights of a fresh engine by those at `path`; all ranks call it together."""
    masters = Masters(engine)
    weights: dict[str, torch.Tensor] = {}

    def read() -> None:
        found = read_weights(path)
        _check_same_model(found, engine.module.config, masters.shapes, path)
        weights.update(found.tensors)

    distributed.run_on_main(read)
    for name, shape in masters.shapes.items():
        masters.write(name, distributed.broadcast_tensor(weights.pop(name, None), shape))


def _check_same_model(
    found: Weights, config: ModelConfig, shapes: dict[str, torch.Size], path: str
) -> None:
    """Shapes alone would not tell: heads and the axes of patches do not show in them."""
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
