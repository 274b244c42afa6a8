"""How DeepSpeed lays out the weights that it trains; no other file knows.

Every rank's optimiser owns a slice of each flattened parameter in fp32 (the parameter's master), of
some parameters none. Beside them are the weights that compute, in the precision that computes.

ZeRO 1 and 2 cut all parameters, laid end to end, into one range per rank, so that a slice begins
anywhere; each rank computes with whole parameters. ZeRO 3 cuts each parameter into equal shares and
pads the last; a rank computes with its share, from which whole parameters are gathered, and keeps
small parameters whole beside it.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

from coordtok import distributed
from coordtok.errors import ConfigError
from coordtok.train.slices import Slice

FLAT_TENSORS = (
    "fp32_partitioned_groups_flat",  # ZeRO 3
    "single_partition_of_fp32_groups",  # ZeRO 1 and 2
    "fp32_groups_flat_partition",  # BF16_Optimizer
)
"""Where DeepSpeed's optimizers keep the tensors that they hand to torch's."""


class Place(NamedTuple):
    """Where a parameter lies: `values` are its elements from `start` on that this rank owns, a view
    of the optimiser's flat tensor `partition`; none on a rank that owns nothing."""

    shape: torch.Size
    partition: int
    start: int
    values: torch.Tensor


class Masters:
    """The fp32 masters of an engine and the weights that compute, by parameter name."""

    def __init__(self, engine: Any) -> None:
        self._flat = next(
            getattr(engine.optimizer, name)
            for name in FLAT_TENSORS
            if hasattr(engine.optimizer, name)
        )
        self._layouts: dict[str, _Fragment | _Share] = {
            name: _Share(parameter, engine.optimizer)
            if hasattr(parameter, "ds_id")
            else _Fragment(parameter)
            for name, parameter in engine.module.named_parameters()
        }

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Of the whole parameters."""
        return {name: layout.shape for name, layout in self._layouts.items()}

    def slices(self) -> dict[str, Slice]:
        """What this rank's optimiser owns: views of the masters (copies on the device where they
        are offloaded to the host)."""
        owned = {name: layout.master() for name, layout in self._layouts.items()}
        return {name: piece for name, piece in owned.items() if piece is not None}

    def places(self) -> dict[str, Place]:
        """Where every parameter lies, the same names on all ranks, which call it together.

        Raises:
            ConfigError: the masters are offloaded, so that views of them are none.
        """
        owned = self.slices()
        own = {name: self._partition(piece.values) for name, piece in owned.items()}
        everywhere: dict[str, int] = {}
        for ranks_own in distributed.gather(own):
            everywhere |= ranks_own
        nothing = Slice(0, self._flat[0].new_empty(0))
        return {
            name: Place(shape, everywhere[name], *owned.get(name, nothing))
            for name, shape in self.shapes.items()
        }

    def partition_of(self, flat: torch.Tensor) -> int:
        """The number of one of the optimiser's flat tensors."""
        return next(number for number, each in enumerate(self._flat) if each is flat)

    def _partition(self, values: torch.Tensor) -> int:
        first = values.data_ptr()
        for number, flat in enumerate(self._flat):
            if 0 <= first - flat.data_ptr() < flat.numel() * flat.element_size():
                return number
        raise ConfigError(
            "optim.name is muon, which updates no weights that are offloaded; choose a DeepSpeed "
            "JSON without offload, or optim.name=adamw"
        )

    @torch.no_grad()
    def write(self, name: str, value: torch.Tensor) -> None:
        """Give a parameter the whole fp32 `value`, in its master and in the weights that compute.

        All ranks hold the same `value`, and each writes what it owns."""
        self._layouts[name].write(value)

    @contextmanager
    @torch.no_grad()
    def replaced(self, slices: Mapping[str, Slice]) -> Iterator[None]:
        """Compute with `slices`, laid out as `slices()`, instead of the weights that compute, which
        come back bit for bit; the masters stay as they are. All ranks enter and leave together."""
        kept = []
        parted = [
            layout
            for layout in self._layouts.values()
            if isinstance(layout, _Share) and not layout.is_whole
        ]
        for name, layout in self._layouts.items():
            own = slices.get(name, Slice(0, torch.empty(0)))
            for computing, value in layout.computing(own):
                kept.append((computing, computing.clone()))
                computing.copy_(value)
        try:
            yield
        finally:
            for computing, weights in reversed(kept):  # two of a parameter may share memory
                computing.copy_(weights)
            for layout in parted:
                layout.part()


class _Fragment(NamedTuple):
    """A parameter under ZeRO 1 and 2, DeepSpeed's BF16_Optimizer included."""

    parameter: Any

    @property
    def shape(self) -> torch.Size:
        return self.parameter.shape

    def master(self) -> Slice | None:
        mapping = self.parameter._hp_mapping
        if mapping is None:
            return None
        return Slice(mapping.lp_fragment_address.start, mapping.get_hp_fragment())

    def write(self, value: torch.Tensor) -> None:
        self.parameter.data.copy_(value)
        own = self.master()
        if own is not None:
            own.values.copy_(value.flatten()[own.start : own.start + own.values.numel()])

    def computing(self, own: Slice) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each tensor that holds weights of the parameter on this rank, and the values for it, of
        which this rank has its `own`."""
        weights = self.parameter.data
        yield weights, _whole(own, weights.numel(), weights.device).view_as(weights)


class _Share(NamedTuple):
    """A parameter under ZeRO 3."""

    parameter: Any
    optimizer: Any

    @property
    def shape(self) -> torch.Size:
        return self.parameter.ds_shape

    def master(self) -> Slice | None:
        padded = self.optimizer.get_local_fp32_param(self.parameter)
        start = distributed.rank() * padded.numel()
        owned = max(0, min(padded.numel(), self.parameter.ds_numel - start))
        return Slice(start, padded[:owned]) if owned else None

    def write(self, value: torch.Tensor) -> None:
        share = self.parameter.ds_tensor.numel()
        padded = value.new_zeros(share * distributed.world_size())
        padded[: value.numel()] = value.flatten()
        own = padded[distributed.rank() * share :][:share]
        self.optimizer.set_local_hp_param(own, self.parameter)
        self.parameter.ds_tensor.data.copy_(own)
        if self.is_whole:
            self.parameter.data.copy_(value)

    def computing(self, own: Slice) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As `_Fragment.computing`."""
        if self.is_whole:
            weights = self.parameter.data
            yield weights, _whole(own, weights.numel(), weights.device).view_as(weights)
        yield self.parameter.ds_tensor.data.flatten()[: own.values.numel()], own.values

    def part(self) -> None:
        """Drop the whole parameter, if it was gathered: the next pass gathers it again."""
        if self.is_whole:
            self.parameter.partition()

    @property
    def is_whole(self) -> bool:
        """Whether this rank holds the whole parameter beside its share now."""
        return self.parameter.numel() == self.parameter.ds_numel


def _whole(own: Slice, size: int, device: torch.device) -> torch.Tensor:
    """The ranks' slices of one flattened parameter, put together on all of them."""
    whole = torch.zeros(size, device=device)
    whole[own.start : own.start + own.values.numel()] = own.values
    return distributed.sum_over_ranks(whole)


def read_masters(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The whole fp32 masters in a checkpoint of any ZeRO stage and number of ranks.

    DeepSpeed's own files are pickles: read only checkpoints you trust.
    """
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return get_fp32_state_dict_from_zero_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
