"""Load an export: its weights are checked against the model before any is taken.

Neither deepspeed nor anything else of training is needed, and no class of model is named here, so
that the models can offer `from_pretrained`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from coordtok.errors import CheckpointError, ConfigError
from coordtok.pretrained.card import CONFIG, KINDS, WEIGHTS, Card, read_card
from coordtok.scaling.memory_needs import check_memory
from coordtok.scaling.parameters import parameters

Model = TypeVar("Model", bound=nn.Module)
Shapes = Mapping[str, tuple[int, ...]]

FLOATS = ("F64", "F32", "F16", "BF16")
"""What safetensors calls the dtypes that weights may have."""


def load_model(
    make: Callable[[Any], Model],
    kind: str,
    folder: str | Path,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Model, Card]:
    """The model `make(config)` with the weights of the export at `folder`, in eval mode.

    device: the CPU by default. dtype: of the weights; None keeps the one they are stored in.

    Raises:
        CheckpointError: no export, one of another kind, or its tensors are not the model's.
        ConfigError: no such device, or not the memory for it.
    """
    card = read_card(Path(folder))
    if card.kind != kind:
        raise CheckpointError(
            f"{folder} holds a model of kind {card.kind!r}, not {kind!r}; load it with "
            f"{KINDS[card.kind].loader}"
        )
    device = usable_device(device)
    _check_size(card, Path(folder) / WEIGHTS, device)
    with torch.device("meta"):
        model = make(card.model)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with open_weights(Path(folder)) as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        difference = first_difference(found, wanted)
        difference = difference or _wrong_dtype({name: file.get_slice(name) for name in wanted})
        if difference:
            raise CheckpointError(f"{folder}/{WEIGHTS}: {difference}; export it again")
        weights = {name: file.get_tensor(name).to(device, dtype) for name in wanted}
    model.load_state_dict(weights, assign=True)
    return model.eval(), card


def _check_size(card: Card, weights: Path, device: torch.device) -> None:
    """Raise a UserError for sizes that cannot be, before a model of them is made."""
    if not weights.is_file():
        return
    size, count = weights.stat().st_size, sum(parameters(card.model).values())
    if count > size:
        raise CheckpointError(
            f"{weights} is damaged, or of another {CONFIG}: {size:,} bytes for {count:,} "
            "parameters; export it again"
        )
    if device.type == "cpu":
        check_memory(size, f"{weights.parent}", "load it on a machine with more")


def usable_device(device: torch.device | str | None) -> torch.device:
    """The device of that name, the CPU by default; a `ConfigError` where there is none."""
    try:
        return torch.empty(0, device=device or "cpu").device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {device} cannot be used ({reason}); choose another") from None


def read_export(folder: Path) -> tuple[Card, dict[str, torch.Tensor]]:
    """The card of an export and its tensors as they are stored, not yet held against a model."""
    card = read_card(folder)
    with open_weights(folder) as file:
        return card, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def first_difference(found: Shapes, wanted: Shapes) -> str | None:
    """What keeps tensors of these shapes from being a model's, or None; the first by name."""
    for name in sorted({*found, *wanted}):
        if name not in found:
            return f"{name} is missing"
        if name not in wanted:
            return f"{name} is no tensor of this model"
        if found[name] != wanted[name]:
            return f"{name} has shape {found[name]}, but the model's is {wanted[name]}"
    return None


def _wrong_dtype(slices: Mapping[str, Any]) -> str | None:
    """What keeps opened tensors from being a model's weights by their dtype, or None."""
    dtypes = {name: each.get_dtype() for name, each in slices.items()}
    first = min(dtypes)
    for name in sorted(dtypes):
        if dtypes[name] not in FLOATS:
            return f"{name} is of {dtypes[name]}, not one of {', '.join(FLOATS)}"
        if dtypes[name] != dtypes[first]:
            return f"{name} is of {dtypes[name]}, but {first} of {dtypes[first]}"
    return None


@contextmanager
def open_weights(folder: Path) -> Iterator[Any]:
    """The opened weights of an export; `keys`, `get_slice` and `get_tensor` read them."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {WEIGHTS}; export it again")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); export it again") from None
