"""Read a file of the authors' release without trusting it.

Such a file is a pickle, which can run any code when it is loaded; `torch.load` with
`weights_only=True` takes tensors and plain containers alone, and names what else a file wants.
"""

import argparse
import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from coordtok.errors import CheckpointError

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
        # A generator's file has its command line in it, a Namespace of plain values. The warning
        # is of the pickle's version, beside which the error says all there is to say.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except (pickle.UnpicklingError, EOFError, KeyError) as error:
        raise CheckpointError(_why_not_loaded(path, str(error))) from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise CheckpointError(f"{path} is damaged ({reason}); {_AGAIN}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not the authors' layout")
    return content


def _why_not_loaded(path: Path, error: str) -> str:
    wanted = re.search(r"(?:GLOBAL|class|function) `?([\w.]+)", error)
    if wanted is None:
        return f"{path} is damaged, or no file of torch.save; {_AGAIN}"
    return (
        f"{path} was not loaded: it wants to call {wanted[1]}, and only tensors are taken; if you "
        f"trust where it is from, keep its weights alone with {_KEEP_WEIGHTS} "
        f"{shlex.quote(str(path))} and import weights.pth"
    )


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
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return False
    return value.layout == torch.strided and not value.is_meta


def tensors_of(weights: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """The tensors by the release's names, without the prefix."""
    for name, value in weights.items():
        if not isinstance(name, str) or not _is_weight(value):
            raise CheckpointError(f"{path}: {name} is no tensor of floats; {_AGAIN}")
    return {name.removeprefix(_PREFIX): tensor for name, tensor in weights.items()}
