"""How long an update takes on one rank: a roofline of every product and attention, by its shape.

A product takes the longer of its operations at the rate that large products reach and its bytes at
the bandwidth, and at least a kernel's launch. What lies between products (norms, activations, sums)
reads and writes memory: what is kept for the backward pass, written once and read twice. Sending is
hidden behind the backward pass as far as that is long enough.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from coordtok.config.schema import RunConfig
from coordtok.scaling.activations import kept_for_backward
from coordtok.scaling.collectives import link_bytes
from coordtok.scaling.devices import Device
from coordtok.scaling.flops import NEWTON_SCHULZ_STEPS, newton_schulz
from coordtok.scaling.memory import Zero
from coordtok.scaling.operations import Operation, operations, recomputed
from coordtok.scaling.parameters import matrices, parameters

_KERNELS_BETWEEN = 2
"""Kernels without a product for each one with, forward: norms, activations, sums."""
_UPDATE_BYTES = {"cpu": 108, "cuda": 56}
"""Bytes read and written for a weight in an update: 80 by torch's AdamW operation by operation, 28
where it is one kernel, the rest by the gradient's norm, its clipping, and copies to and from the
weights that compute."""
_AVERAGE_BYTES = 12
"""Likewise by its average."""


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
    alone: float
    """Likewise on a CPU, where no device works meanwhile."""

    @property
    def device(self) -> float:
        """Of the device's work, sending left out."""
        products = self.forward + self.backward + self.recomputed
        return products + self.between + self.optimizer

    @property
    def total(self) -> float:
        return max(self.device + self.exposed, self.host) + self.alone

    def at(self, pace: float) -> "StepTime":
        """The device's work slower or faster; sending and Python as they are."""
        backward = pace * self.backward
        return replace(
            self,
            forward=pace * self.forward,
            backward=backward,
            recomputed=pace * self.recomputed,
            between=pace * self.between,
            optimizer=pace * self.optimizer,
            exposed=max(0.0, self.communication - backward),
        )


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
    again = _seconds(recomputed(run), device, zero.number, micro_batch)
    kept = sum(part.plain for part in kept_for_backward(run, zero.number).values())
    between = 3 * kept * micro_batch / device.bandwidth
    sent = link_bytes(run, zero, ranks, passes)
    communication = sent / link if ranks > 1 else 0.0
    launches = passes * sum(each.times for each in made) * (1 + _KERNELS_BETWEEN) * 3
    python = launches * device.python
    return StepTime(
        forward=passes * forward,
        backward=passes * backward,
        recomputed=passes * again,
        between=passes * between,
        optimizer=_update(run, device, ranks),
        communication=communication,
        exposed=max(0.0, communication - passes * backward),
        host=0.0 if device.kind == "cpu" else python,
        alone=python if device.kind == "cpu" else 0.0,
    )


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
    """Memory traffic of AdamW and of the average; Muon orthogonalises in float32, its matrices
    shared out over the ranks."""
    count = sum(parameters(run.model).values())
    each = _UPDATE_BYTES[device.kind] + (_AVERAGE_BYTES if run.ema.decay > 0 else 0)
    seconds = each * count / ranks / device.bandwidth
    if run.optim.name == "muon":
        shapes = matrices(run.model)
        work = sum(newton_schulz(*shape) for shape in shapes) / ranks
        kernels = 3 * NEWTON_SCHULZ_STEPS * len(set(shapes))
        seconds += work / (device.fp32 * device.product_share) + kernels * device.launch
    return seconds
