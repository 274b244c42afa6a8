"""How long an update takes on one rank: a roofline of every product and attention, by its shape.

A product takes the longer of its operations at the rate that large products reach and its bytes at
the bandwidth, and at least a kernel's launch. What lies between products (norms, activations, sums)
reads and writes memory: what is kept for the backward pass, written once and read twice. Sending is
hidden behind the backward pass as far as that is long enough.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from coordtok.config.schema import RunConfig
from coordtok.scaling.activations import kept_for_backward
from coordtok.scaling.devices import Device
from coordtok.scaling.flops import NEWTON_SCHULZ_STEPS, newton_schulz
from coordtok.scaling.memory import FLOAT, Zero, states
from coordtok.scaling.operations import Operation, operations
from coordtok.scaling.parameters import matrices, parameters

_KERNELS_BETWEEN = 2
"""Kernels without a product for each one with, forward: norms, activations, sums."""
_PYTHON = 1.2e-5
"""Seconds of the host for a kernel of an eager step, measured on recent CPUs."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of one update."""

    forward: float
    backward: float
    recomputed: float
    between: float
    """What is neither a product nor attention."""
    optimizer: float
    communication: float
    """All of it, hidden or not."""
    exposed: float
    """What of it nothing hides."""
    host: float
    """Python's time to launch it all, which must stay below the device's."""

    @property
    def device(self) -> float:
        """Of the device's work, sending left out."""
        products = self.forward + self.backward + self.recomputed
        return products + self.between + self.optimizer

    @property
    def total(self) -> float:
        return max(self.device + self.exposed, self.host)


def step_time(
    run: RunConfig, zero: Zero, device: Device, ranks: int, micro_batch: int, link: float
) -> StepTime:
    """Of one update. link: bytes a second that a rank sends to the others."""
    passes = run.train.global_batch // (ranks * micro_batch)
    parts = operations(run)
    made = [each for part in parts.values() for each in part]
    forward = _seconds(made, device, zero.number, micro_batch)
    backward = sum(
        _seconds([each], device, zero.number, micro_batch) * each.backward / each.forward
        for each in made
    )
    recomputed = 0.0
    if run.train.activation_checkpointing:
        again = [each for name, part in parts.items() if "block" in name for each in part]
        recomputed = _seconds(again, device, zero.number, micro_batch)
    kept = sum(part.plain for part in kept_for_backward(run, zero.number).values())
    between = 3 * kept * micro_batch / device.bandwidth
    sent = communication_bytes(run, zero, ranks, passes)
    communication = sent / link if ranks > 1 else 0.0
    launches = sum(each.times for each in made) * (1 + _KERNELS_BETWEEN) * 3
    return StepTime(
        forward=passes * forward,
        backward=passes * backward,
        recomputed=passes * recomputed,
        between=passes * between,
        optimizer=_update(run, device, ranks),
        communication=communication,
        exposed=max(0.0, communication - passes * backward),
        host=passes * launches * _PYTHON if device.launch < 1e-5 else 0.0,
    )


def communication_bytes(run: RunConfig, zero: Zero, ranks: int, passes: int) -> float:
    """What a rank sends for one update: gradients to their owners, weights from theirs, under stage
    3 weights before each forward and each backward pass and gradients after each."""
    count = sum(parameters(run.model).values())
    all_of_it = zero.number * count * (ranks - 1) / ranks
    if zero.stage == 3:
        return 3 * passes * all_of_it
    return (1 + (passes if zero.stage == 2 else 1)) * all_of_it


def _seconds(made: Iterable[Operation], device: Device, number: int, clips: int) -> float:
    """Of the forward pass of `clips` clips."""
    rate = device.bf16 if number == 2 else device.fp32
    total = 0.0
    for each in made:
        if each.kind == "attention":
            seconds = clips * each.forward / each.times / (rate * device.attention_share)
        else:
            rows = clips * each.rows
            moved = rows * each.inputs + each.inputs * each.outputs + rows * each.outputs
            operations_each = clips * each.forward / each.times
            seconds = max(
                operations_each / (rate * device.product_share), number * moved / device.bandwidth
            )
        total += each.times * max(seconds, device.launch)
    return total


def _update(run: RunConfig, device: Device, ranks: int) -> float:
    """Masters, gradients, states and EMA are read and written once; Muon orthogonalises in float32,
    its matrices shared out over the ranks."""
    count = sum(parameters(run.model).values())
    moved = FLOAT * (2 * (2 * count + states(run)) + count) / ranks
    seconds = moved / device.bandwidth
    if run.optim.name == "muon":
        shapes = matrices(run.model)
        work = sum(newton_schulz(*shape) for shape in shapes) / ranks
        kernels = 3 * NEWTON_SCHULZ_STEPS * len(set(shapes))
        seconds += work / (device.fp32 * device.product_share) + kernels * device.launch
    return seconds
