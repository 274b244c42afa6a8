"""Start from given weights (`train.init_from`): an export, a checkpoint, or a run's newest one.

The fp32 values go into the optimiser's masters themselves. Loading them into the model before the
engine is built would round them to the precision that computes.
"""

from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from coordtok import distributed
from coordtok.config.schema import ModelConfig
from coordtok.errors import CheckpointError
from coordtok.pretrained.read import first_difference
from coordtok.train.weights import Weights, read_weights

FREE_TO_CHANGE = {"legacy_padding"}
"""What a model may do otherwise with the same weights."""


@torch.no_grad()
def initialise_from(engine: Any, path: str) -> None:
    """Replace the weights of a fresh engine by those at `path`; all ranks call it together."""
    parameters = dict(engine.module.named_parameters())
    shapes = {name: _shape(parameter) for name, parameter in parameters.items()}
    weights: dict[str, torch.Tensor] = {}

    def read() -> None:
        found = read_weights(path)
        _check_same_model(found, engine.module.config, shapes, path)
        weights.update(found.tensors)

    distributed.run_on_main(read)
    for name, parameter in parameters.items():
        value = distributed.broadcast_tensor(weights.pop(name, None), shapes[name])
        _set_parameter(engine, parameter, value)


def _shape(parameter: nn.Parameter) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)


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


def _set_parameter(engine: Any, parameter: Any, value: torch.Tensor) -> None:
    """Write fp32 `value` into the rank's share of the master and of the computing weights."""
    flat = value.flatten()
    if not hasattr(parameter, "ds_id"):
        parameter.data.copy_(value)
        if parameter._hp_mapping is not None:
            place = parameter._hp_mapping.lp_fragment_address
            piece = flat[place.start : place.start + place.numel]
            parameter._hp_mapping.get_hp_fragment().copy_(piece)
        return
    share = parameter.ds_tensor.numel()
    padded = flat.new_zeros(share * distributed.world_size())
    padded[: flat.numel()] = flat
    own = padded[distributed.rank() * share :][:share]
    engine.optimizer.set_local_hp_param(own, parameter)
    parameter.ds_tensor.data.copy_(own)
    if parameter.numel() == parameter.ds_numel:  # small ones stay whole on every rank
        parameter.data.copy_(value)
