"""How DeepSpeed lays out the weights that it trains and the optimiser's states for them; no other
file knows.

Every rank's optimiser owns a slice of each flattened parameter in fp32 (the parameter's master), of
some parameters none. Beside them are the weights that compute, in the precision that computes.

ZeRO 1 and 2 cut all parameters, laid end to end, into one range per rank, so that a slice begins
anywhere; each rank computes with whole parameters. ZeRO 3 cuts each parameter into equal shares and
pads the last; a rank computes with its share, from which whole parameters are gathered, and keeps
small parameters whole beside it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from coordtok import distributed
from coordtok.errors import CheckpointError
from coordtok.storage.slice_files import Span
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


class Position(NamedTuple):
    """Where what a rank owns of a parameter, its `span`, lies in the optimiser's flat tensor
    `partition`: from `offset` on."""

    partition: int
    offset: int
    span: Span

    def view(self, flat: torch.Tensor) -> Slice:
        """The part of a flat tensor laid out as that one."""
        return Slice(self.span.start, flat.detach()[self.offset :][: self.span.size])


class Masters:
    """The fp32 masters of an engine, the optimiser's states for them and the weights that compute,
    by parameter name.

    Slices are views of the optimiser's own tensors, on the host where those are offloaded.
    """

    def __init__(self, engine: Any) -> None:
        self._optimizer = engine.optimizer
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
        positions = {name: layout.position() for name, layout in self._layouts.items()}
        self._positions = {name: place for name, place in positions.items() if place is not None}

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """Of the whole parameters."""
        return {name: layout.shape for name, layout in self._layouts.items()}

    @property
    def layout(self) -> dict[str, Span]:
        """What this rank owns of each parameter, if anything."""
        return {name: position.span for name, position in self._positions.items()}

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The one that DeepSpeed hands its flat tensors to."""
        return self._optimizer.optimizer

    def slices(self) -> dict[str, Slice]:
        """The masters that this rank owns."""
        return {
            name: position.view(self._flat[position.partition])
            for name, position in self._positions.items()
        }

    def states(self) -> dict[str, dict[str, Slice]]:
        """What the optimiser keeps for every weight that this rank owns, by its name for it, then
        by parameter: Adam's moments, momentum. Empty before the first update."""
        found: dict[str, dict[str, Slice]] = {}
        for name, position in self._positions.items():
            flat = self._flat[position.partition]
            for state, value in self.optimizer.state.get(flat, {}).items():
                if torch.is_tensor(value) and value.shape == flat.shape:
                    found.setdefault(state, {})[name] = position.view(value)
        return found

    def counts(self) -> dict[str, dict[str, float]]:
        """What the optimiser keeps beside that, by parameter: its count of steps."""
        return {
            name: {
                state: float(value)
                for state, value in self.optimizer.state.get(flat, {}).items()
                if value is not None and not (torch.is_tensor(value) and value.numel() > 1)
            }
            for name, position in self._positions.items()
            for flat in [self._flat[position.partition]]
        }

    @torch.no_grad()
    def make_states(
        self, states: Mapping[str, Sequence[str]], counts: Mapping[str, Mapping[str, float]]
    ) -> None:
        """Replace the optimiser's states by new ones, zero everywhere: by parameter, the names of
        `states()` and the numbers of `counts()`.

        Raises:
            CheckpointError: two parameters that lie in one flat tensor differ in them.
        """
        self.optimizer.state.clear()
        first: dict[int, str] = {}
        for name, position in self._positions.items():
            other = first.setdefault(position.partition, name)
            if (states[name], counts[name]) != (states[other], counts[other]):
                raise CheckpointError(
                    f"the checkpoint's optimiser treats {name} and {other} differently, this run's "
                    "alike; set optim.* back, or take the weights alone with train.init_from"
                )
            if other == name and (states[name] or counts[name]):
                flat = self._flat[position.partition]
                place = flat.device if self.optimizer.defaults.get("fused") else "cpu"
                self.optimizer.state[flat] = {
                    **{key: torch.tensor(each, device=place) for key, each in counts[name].items()},
                    **{state: torch.zeros_like(flat.detach()) for state in states[name]},
                }
        if isinstance(self._first, _Fragment) and self.optimizer.state:
            self._optimizer._lazy_init_hp_params_optimizer_state()

    @property
    def _first(self) -> "_Fragment | _Share":
        return next(iter(self._layouts.values()))

    def places(self) -> dict[str, Place]:
        """Where every parameter lies, the same names on all ranks, which call it together."""
        own = {name: position.partition for name, position in self._positions.items()}
        everywhere: dict[str, int] = {}
        for ranks_own in distributed.gather(own):
            everywhere |= ranks_own
        owned, nothing = self.slices(), Slice(0, self._flat[0].new_empty(0))
        return {
            name: Place(shape, everywhere[name], *owned.get(name, nothing))
            for name, shape in self.shapes.items()
        }

    def partition_of(self, flat: torch.Tensor) -> int:
        """The number of one of the optimiser's flat tensors."""
        return next(number for number, each in enumerate(self._flat) if each is flat)

    @torch.no_grad()
    def write(self, name: str, value: torch.Tensor) -> None:
        """Give what this rank owns of a parameter the whole fp32 `value`; then `publish`."""
        position = self._positions.get(name)
        if position is not None:
            start, own = position.view(self._flat[position.partition])
            own.copy_(value.flatten()[start : start + own.numel()])

    @torch.no_grad()
    def publish(self) -> None:
        """Give the weights that compute the values of the masters; all ranks call it together."""
        if isinstance(self._first, _Fragment):
            self._optimizer.update_lp_params()
            return
        self._optimizer.checkpoint_event_prologue()
        for name, own in self.slices().items():
            self._layouts[name].parameter.ds_tensor.data.flatten()[: own.values.numel()].copy_(
                own.values
            )
        self._optimizer.checkpoint_event_epilogue()

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

    def position(self) -> Position | None:
        """None on a rank that owns nothing of it."""
        mapping = self.parameter._hp_mapping
        if mapping is None:
            return None
        start, size = mapping.lp_fragment_address.start, mapping.lp_fragment_address.numel
        offset = mapping.hp_fragment_address.start
        return Position(mapping.param_group_index, offset, Span(start, start + size))

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

    def position(self) -> Position | None:
        """As `_Fragment.position`."""
        number = self.optimizer.get_param_id(self.parameter)
        partition, offset, share = self.optimizer.grad_position[number]
        start = distributed.rank() * share
        span = Span(0, self.parameter.ds_numel).overlap(Span(start, start + share))
        return Position(partition, offset, span) if span.size else None

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
