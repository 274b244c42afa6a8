"""What the authors' files have in common: how their tensors become ours.

Their x is the row and y the column, so their yt plane (t, column) is our xt, and their xt is our
yt, wherever a plane is named. Each of our tensors is looked up in theirs, so that what is missing
or left over is reported by its name in the file.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from coordtok.errors import CheckpointError, ConfigError

Weights = Mapping[str, torch.Tensor]
Change = Callable[[torch.Tensor], torch.Tensor]
"""From their layout of a tensor to ours."""

THEIR_PLANES = ("xy", "xt", "yt")
"""What they call our planes xy, yt, xt."""

HEAD_WIDTH = 64
"""Width of a head in all released sizes; the tensors do not show it."""


def channels_last(weight: torch.Tensor) -> torch.Tensor:
    """A convolution's weight, (D, C, ...), as that of a linear layer on flat patches (..., C)."""
    return weight.movedim(1, -1).flatten(1)


def unchanged(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def translate(
    theirs: Weights,
    wanted: Weights,
    their_tensor: Callable[[str], tuple[str, Change]],
    path: Path,
    ignored: str | None = None,
) -> dict[str, torch.Tensor]:
    """Their tensors by our names and in our layout; views of theirs where possible.

    wanted: ours, for their shapes. their_tensor: of one of our names, theirs and how to change it.
    ignored: how names begin that may be left over. `path` is named in errors.

    Raises:
        CheckpointError: a tensor is missing, of another shape, or unknown.
    """
    ours, used = {}, set()
    for name, expected in wanted.items():
        their_name, change = their_tensor(name)
        ours[name] = _changed(theirs, their_name, change, expected.shape, path)
        used.add(their_name)
    rest = (name for name in theirs if name not in used)
    unknown = [name for name in rest if ignored is None or not name.startswith(ignored)]
    if unknown:
        raise CheckpointError(
            f"{path} holds {unknown[0]}, which the authors' model of these sizes lacks; "
            "import the file as it was released"
        )
    return ours


def _changed(
    theirs: Weights, name: str, change: Change, shape: torch.Size, path: Path
) -> torch.Tensor:
    if name not in theirs:
        raise CheckpointError(f"{path} lacks {name}; download it again")
    try:
        tensor = change(theirs[name])
    except (RuntimeError, IndexError, ValueError):  # too few axes
        tensor = torch.empty(0)
    if tensor.shape != shape:
        raise CheckpointError(
            f"{path}: {name} has shape {tuple(theirs[name].shape)}, which does not fit the sizes "
            "of the other tensors; import the file as it was released"
        )
    return tensor


def shape_of(theirs: Weights, name: str, axes: int, path: Path) -> tuple[int, ...]:
    """The shape of a tensor that must have so many axes, and values."""
    if name not in theirs or theirs[name].ndim != axes or not theirs[name].numel():
        found = tuple(theirs[name].shape) if name in theirs else "missing"
        raise CheckpointError(f"{path}: {name} is {found}; it must have {axes} axes, none empty")
    return tuple(theirs[name].shape)


def heads_of(dim: int, path: Path) -> int:
    """The number of heads where the user says none."""
    if dim % HEAD_WIDTH:
        raise ConfigError(
            f"{path} is {dim} wide, which heads of {HEAD_WIDTH} do not divide; say how many it has "
            "with --heads"
        )
    return dim // HEAD_WIDTH


def count_layers(theirs: Weights, prefix: str) -> int:
    """One more than the highest number that follows `prefix` and a dot."""
    numbers = (re.match(rf"{re.escape(prefix)}\.([0-9]{{1,9}})\.", name) for name in theirs)
    return max((int(number[1]) for number in numbers if number), default=-1) + 1
