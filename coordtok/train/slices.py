"""Slices of flattened parameters, in memory and in files that any number of ranks reads back.

A file is safetensors: parameter name -> slice, with the slices' starts in the metadata. Each rank
writes one of what it owns; a reader cuts its own slices out of whichever files hold them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from coordtok.errors import CheckpointError


class Slice(NamedTuple):
    """Part of a flattened parameter: `values` (n,) fp32 are its elements `start` to `start + n`."""

    start: int
    values: torch.Tensor


def write_slices(slices: Mapping[str, Slice], path: Path) -> None:
    """Write `slices`, by parameter name, to the file `path`."""
    starts = {name: piece.start for name, piece in slices.items()}
    tensors = {name: piece.values.contiguous() for name, piece in slices.items()}
    save_file(tensors, path, metadata={"starts": json.dumps(starts)})


def fill_slices(slices: Mapping[str, Slice], paths: Sequence[Path]) -> None:
    """Copy into `slices` what the files at `paths` hold of them.

    Raises:
        CheckpointError: they do not hold all of it.
    """
    pieces = _open_pieces(paths)
    for name, own in slices.items():
        filled = sum(_copy_overlap(own, start, piece) for start, piece in pieces.get(name, []))
        if filled != own.values.numel():
            raise CheckpointError(
                f"{paths[0].parent} holds {filled} of {own.values.numel()} values of {name} in "
                f"files like {paths[0].name}; they are of another model"
            )


def _copy_overlap(own: Slice, start: int, piece: Any) -> int:
    """Copy what a stored piece that begins at `start` shares with `own`; the number of values."""
    low = max(own.start, start)
    high = min(own.start + own.values.numel(), start + piece.get_shape()[0])
    if low >= high:
        return 0
    own.values[low - own.start : high - own.start].copy_(piece[low - start : high - start])
    return high - low


def _open_pieces(paths: Sequence[Path]) -> dict[str, list[tuple[int, Any]]]:
    """Parameter name -> (start, lazily read slice) over all files."""
    pieces: dict[str, list[tuple[int, Any]]] = {}
    for path in paths:
        file = safe_open(path, framework="pt")
        starts = json.loads(file.metadata()["starts"])
        for name, start in starts.items():
            pieces.setdefault(name, []).append((start, file.get_slice(name)))
    return pieces
