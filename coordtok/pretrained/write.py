"""Write an export: whole or not at all, and never over anything that is not one."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from coordtok.errors import CheckpointError
from coordtok.pretrained.card import CONFIG, WEIGHTS, Card, is_export_config
from coordtok.progress import ProgressBar
from coordtok.storage.files import whole_folder
from coordtok.storage.json_files import read_json

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def check_target(folder: Path, overwrite: bool) -> None:
    """Raise a `CheckpointError` unless an export may be written to `folder`."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; name a new folder")
    names = {path.name for path in folder.iterdir()}
    if not names:
        return
    foreign = sorted(names - {CONFIG, WEIGHTS})
    if foreign or not _holds_export(folder):
        held = foreign[0] if foreign else f"a {CONFIG} of something else"
        raise CheckpointError(f"{folder} holds {held} and is not replaced; name a new folder")
    if not overwrite:
        raise CheckpointError(
            f"{folder} already holds an export; name another folder, or replace it with --overwrite"
        )


def _holds_export(folder: Path) -> bool:
    try:
        return is_export_config(read_json(folder / CONFIG))
    except (OSError, ValueError):
        return False


def write_export(
    folder: Path,
    card: Card,
    weights: Mapping[str, torch.Tensor],
    dtype: torch.dtype = torch.float32,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Write `weights`, cast to `dtype`, and `card` to `folder`, which appears once it is complete.

    Raises:
        CheckpointError: `folder` is taken, or a weight is not finite.
        DataError: `folder` cannot be written.
    """
    check_target(folder, overwrite)
    tensors = {
        name: _stored(name, tensor, dtype)
        for name, tensor in ProgressBar(weights.items(), "weights", unit="", disable=not progress)
    }
    with whole_folder(folder, replace=True) as part:
        _write_files(part, card, tensors)


def _stored(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not tensor.isfinite().all():
        raise CheckpointError(
            f"{name} holds values that are not finite: training diverged; take weights from an "
            "earlier step"
        )
    return tensor.to("cpu", dtype).contiguous()


def _write_files(part: Path, card: Card, tensors: dict[str, torch.Tensor]) -> None:
    (part / CONFIG).write_text(card.to_json(), encoding="utf-8")
    try:
        save_file(tensors, part / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:  # of a full disk
        raise OSError(str(error)) from None
    shutil.copymode(part / CONFIG, part / WEIGHTS)  # safetensors lets only the owner read
    for name in (CONFIG, WEIGHTS):
        with open(part / name, "rb") as file:
            os.fsync(file.fileno())
