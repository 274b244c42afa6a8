"""Start from given weights (`train.init_from`): an export, a checkpoint, or a run's newest one.

The fp32 values go into the optimiser's masters themselves. Loading them into the model before the
engine is built would round them to the precision that computes.
"""

from pathlib import Path
from typing import Any

import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint
from safetensors.torch import load_file
from torch import nn

from coordtok import distributed
from coordtok.config.errors import CheckpointError
from coordtok.train.checkpoint import MANIFEST, committed

EXPORT = "model.safetensors"


def read_weights(path: str) -> dict[str, torch.Tensor]:
    """fp32 weights by parameter name from an export folder, a checkpoint or a run folder."""
    folder = Path(path)
    if (folder / EXPORT).is_file():
        return load_file(folder / EXPORT)
    if (folder / "checkpoints").is_dir():
        folder = next(iter(committed(folder / "checkpoints")), folder)
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"{path} holds no weights: neither {EXPORT} nor a complete checkpoint; name an export, "
            "a step_* folder or a run folder"
        )
    return get_fp32_state_dict_from_zero_checkpoint(str(folder.parent), tag=folder.name)


@torch.no_grad()
def initialise_from(engine: Any, path: str) -> None:
    """Replace the weights of a fresh engine by those at `path`; all ranks call it together."""
    parameters = dict(engine.module.named_parameters())
    shapes = {name: _shape(parameter) for name, parameter in parameters.items()}
    weights: dict[str, torch.Tensor] = {}
    distributed.run_on_main(lambda: weights.update(_matching(read_weights(path), shapes, path)))
    for name, parameter in parameters.items():
        value = distributed.broadcast_tensor(weights.get(name), shapes[name])
        _set_parameter(engine, parameter, value)


def _shape(parameter: nn.Parameter) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)


def _matching(
    weights: dict[str, torch.Tensor], shapes: dict[str, torch.Size], path: str
) -> dict[str, torch.Tensor]:
    """`weights`, if they are of this very model."""
    for name in sorted({*weights, *shapes}):
        found = tuple(weights[name].shape) if name in weights else "missing"
        wanted = tuple(shapes[name]) if name in shapes else "not part of the model"
        if found != wanted:
            raise CheckpointError(
                f"train.init_from={path} is of another model: {name} is {found} there and "
                f"{wanted} here; give it the same model section"
            )
    return weights


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
