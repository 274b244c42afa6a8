"""Read a file of the authors' release without trusting it."""

import argparse
import shlex
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch

from coordtok.errors import CheckpointError
from coordtok.torch_files import WantsToRun, has_its_values, load_weights_only

_AGAIN = "download it again"
_KEEP_WEIGHTS = (
    'python -c "import sys, torch; f = torch.load(sys.argv[1], weights_only=False); '
    "torch.save({k: f[k] for k in f if k in ('model', 'ema')}, 'weights.pth')\""
)

OfficialKind = Literal["tokenizer", "generator"]

_PREFIX = "module."
"""What the release's DistributedDataParallel puts before every name."""
_MARKS: dict[OfficialKind, str] = {
    "tokenizer": "weight_tokens_xy",
    "generator": "x_embedder_xy.proj.weight",
}
"""A tensor that only this kind of file holds."""


def load_official(path: Path) -> dict[str, Any]:
    """The top level of the file; tensors stay on disk until they are used, where its format allows.

    Raises:
        CheckpointError: no such file, damaged, no file of torch.save, or more than tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; name a .pth or .pt file of the authors")
    try:
        # A generator's file has its command line in it, a Namespace of plain values.
        content = load_weights_only(path, also=[argparse.Namespace])
    except WantsToRun as error:
        raise CheckpointError(
            f"{path} was not loaded: {error}, and only tensors are taken; if you trust where it is "
            f"from, keep its weights alone with {_KEEP_WEIGHTS} {shlex.quote(str(path))} and "
            "import weights.pth"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged, or no file of torch.save ({error}); {_AGAIN}"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not the authors' layout")
    return content


def official_kind(content: Mapping[str, Any], path: Path) -> OfficialKind:
    """Which of the authors' models the file holds."""
    weights = content.get("model")
    if isinstance(weights, Mapping):
        for kind, mark in _MARKS.items():
            if mark in weights or _PREFIX + mark in weights:
                return kind
    raise CheckpointError(
        f"{path} is neither the authors' tokenizer nor their generator: it lacks "
        f"model/{_PREFIX}{_MARKS['tokenizer']} and model/{_MARKS['generator']}"
    )


def _is_weight(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and has_its_values(value)


def _first_shared(weights: Mapping[str, torch.Tensor]) -> str | None:
    """A tensor whose memory begins within another's, or None."""
    spans = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size(), name)
        for name, tensor in weights.items()
    )
    overlapping = (name for (_, end, _), (start, _, name) in pairwise(spans) if start < end)
    return next(overlapping, None)


def tensors_of(weights: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """The tensors by the release's names, without the prefix."""
    for name, value in weights.items():
        if not isinstance(name, str) or not _is_weight(value):
            raise CheckpointError(f"{path}: {name} is no tensor of floats; {_AGAIN}")
    if (shared := _first_shared(weights)) is not None:
        raise CheckpointError(f"{path}: {shared} shares its values with another tensor; {_AGAIN}")
    return {name.removeprefix(_PREFIX): tensor for name, tensor in weights.items()}
