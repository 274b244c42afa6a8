"""Exponential moving average of the fp32 master weights, sharded as they are.

Each rank averages the slices of the flattened parameters that its optimiser owns, so the average
costs 4 bytes per parameter over all ranks, and no communication. In bf16 an average at 0.9999 never
moves: the masters and the average are fp32.

On disk every rank writes `ema_rank_00000.safetensors`: parameter name -> slice, with the slices'
starts in the metadata. Any number of ranks and any ZeRO stage reads them back: a slice is cut out
of whichever files hold it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from coordtok import distributed
from coordtok.errors import CheckpointError

FILE = "ema_rank_{:05d}.safetensors"


class Slice(NamedTuple):
    """Part of a flattened parameter: `values` (n,) fp32 are its elements `start` to `start + n`."""

    start: int
    values: torch.Tensor


def master_slices(engine: Any) -> dict[str, Slice]:
    """Views of the fp32 masters that this rank's optimiser updates, by parameter name."""
    slices = {}
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            continue
        if hasattr(parameter, "ds_numel"):
            values = engine.optimizer.get_local_fp32_param(parameter)
            start = distributed.rank() * values.numel()
            owned = max(0, min(values.numel(), parameter.ds_numel - start))
            if owned:
                slices[name] = Slice(start, values[:owned])
        elif parameter._hp_mapping is not None:
            fragment = parameter._hp_mapping
            slices[name] = Slice(fragment.lp_fragment_address.start, fragment.get_hp_fragment())
    return slices


class EMA:
    """`decay` x average + (1 - `decay`) x weights after every step."""

    def __init__(self, engine: Any, decay: float) -> None:
        self.decay = decay
        self._engine = engine
        self.slices = {
            name: Slice(start, values.detach().clone())
            for name, (start, values) in master_slices(engine).items()
        }

    @torch.no_grad()
    def update(self) -> None:
        masters = master_slices(self._engine)
        averages = [average.values for average in self.slices.values()]
        weights = [masters[name].values for name in self.slices]
        if averages:
            torch._foreach_lerp_(averages, weights, 1 - self.decay)

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The averages in place of the weights that compute, which come back bit for bit; the
        masters stay as they are. All ranks enter and leave together."""
        kept = []
        for name, parameter in self._engine.module.named_parameters():
            own = self.slices.get(name, Slice(0, torch.empty(0)))
            for computing, average in _averages(parameter, own):
                kept.append((computing, computing.clone()))
                computing.copy_(average)
        try:
            yield
        finally:
            for computing, weights in reversed(kept):  # two of a parameter may share memory
                computing.copy_(weights)

    def save(self, folder: Path) -> None:
        """Write this rank's file into `folder`."""
        starts = {name: piece.start for name, piece in self.slices.items()}
        tensors = {name: piece.values.contiguous() for name, piece in self.slices.items()}
        path = folder / FILE.format(distributed.rank())
        save_file(tensors, path, metadata={"starts": json.dumps(starts)})

    def load(self, folder: Path) -> None:
        """Take the averages from `folder`, saved by any number of ranks."""
        _fill(self.slices, folder)


def _averages(parameter: Any, own: Slice) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each tensor that holds weights of `parameter` on this rank, and the averages for it."""
    if not hasattr(parameter, "ds_id"):
        yield parameter.data, _whole(own, parameter.numel(), parameter.device).view_as(parameter)
        return
    if parameter.numel() == parameter.ds_numel:  # small ones stay whole on every rank
        whole = _whole(own, parameter.ds_numel, parameter.device)
        yield parameter.data, whole.view_as(parameter)
    share = parameter.ds_tensor.data.flatten()[: own.values.numel()]
    yield share, own.values


def _whole(own: Slice, size: int, device: torch.device) -> torch.Tensor:
    """The ranks' slices of one flattened parameter, put together on all of them."""
    whole = torch.zeros(size, device=device)
    whole[own.start : own.start + own.values.numel()] = own.values
    return distributed.sum_over_ranks(whole)


def has_ema(folder: Path) -> bool:
    """Whether the checkpoint at `folder` holds an average."""
    return (folder / FILE.format(0)).is_file()


def read_ema(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The whole averages of a checkpoint, fp32, of the parameters with these names and shapes."""
    whole = {name: Slice(0, torch.empty(math.prod(shape))) for name, shape in shapes.items()}
    _fill(whole, folder)
    return {name: whole[name].values.view(shape) for name, shape in shapes.items()}


def _fill(slices: Mapping[str, Slice], folder: Path) -> None:
    """Copy into `slices` what the files of all ranks in `folder` hold of them."""
    pieces = _open_pieces(folder)
    for name, own in slices.items():
        filled = sum(_copy_overlap(own, start, piece) for start, piece in pieces.get(name, []))
        if filled != own.values.numel():
            raise CheckpointError(
                f"{folder} holds {filled} of {own.values.numel()} averaged values of {name}; "
                "its EMA files are not of this model"
            )


def _copy_overlap(own: Slice, start: int, piece: Any) -> int:
    """Copy what a stored piece that begins at `start` shares with `own`; the number of values."""
    low = max(own.start, start)
    high = min(own.start + own.values.numel(), start + piece.get_shape()[0])
    if low >= high:
        return 0
    own.values[low - own.start : high - own.start].copy_(piece[low - start : high - start])
    return high - low


def _open_pieces(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Parameter name -> (start, lazily read slice) over all ranks' files of `folder`."""
    paths = sorted(folder.glob(FILE.format(0).replace("00000", "*")))
    if not paths:
        raise CheckpointError(
            f"{folder} holds no EMA; set ema.decay=0 or start a new run with train.init_from"
        )
    files = [safe_open(path, framework="pt") for path in paths]
    pieces: dict[str, list[tuple[int, Any]]] = {}
    for file in files:
        starts = json.loads(file.metadata()["starts"])
        for name, start in starts.items():
            pieces.setdefault(name, []).append((start, file.get_slice(name)))
    return pieces
