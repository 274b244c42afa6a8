"""What a training step costs in floating-point operations: a formula, without torch.

Counted are matrix products and attention, as torch's FlopCounterMode counts them: a multiplication
and an addition are two operations. A backward pass makes two products for each of the forward
pass, one where the input needs no gradient; attention makes five for two, since its weights are
computed again. Normalisation, activations and the like are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from coordtok.config.schema import RunConfig
from coordtok.scaling.operations import operations, recomputed
from coordtok.scaling.parameters import matrices, parameters

ADAMW_PER_PARAMETER = 14
"""Operations on each parameter: two moments, their correction, decay and the update."""
NEWTON_SCHULZ_STEPS = 5
"""Of the iteration by which Muon orthogonalises (train.muon)."""


@dataclass(frozen=True)
class Flops:
    """Of one part of a model and one clip."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        return self.forward + self.backward


@dataclass(frozen=True)
class StepFlops:
    """Of one update, all clips of the global batch together."""

    forward: float
    backward: float
    recomputed: float
    """Forward passes that activation checkpointing makes again."""
    optimizer: float

    @property
    def total(self) -> float:
        return self.forward + self.backward + self.recomputed + self.optimizer


def training_step_flops(run: RunConfig) -> StepFlops:
    """Operations of one update of `run`."""
    parts = clip_flops(run)
    clips = run.train.global_batch
    forward = clips * sum(flops.forward for flops in parts.values())
    backward = clips * sum(flops.backward for flops in parts.values())
    again = clips * sum(each.forward for each in recomputed(run))
    optimizer = float(ADAMW_PER_PARAMETER) * sum(parameters(run.model).values())
    if run.optim.name == "muon":
        optimizer += sum(newton_schulz(*shape) for shape in matrices(run.model))
    return StepFlops(forward, backward, again, optimizer)


def clip_flops(run: RunConfig) -> Mapping[str, Flops]:
    """Operations for one clip, by part of the model."""
    return {
        name: Flops(sum(each.forward for each in made), sum(each.backward for each in made))
        for name, made in operations(run).items()
    }


def newton_schulz(rows: int, columns: int) -> float:
    """Of orthogonalising one matrix (train.muon): per step two products of the long side, and one
    of the short side alone."""
    short, long = sorted((rows, columns))
    return NEWTON_SCHULZ_STEPS * (4.0 * short * short * long + 2.0 * short**3)
