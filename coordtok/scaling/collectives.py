"""What ranks send each other for an update: DeepSpeed's collectives, in bytes, without torch.

Stages 1 and 2 sum gradients in buckets by an all-reduce (`use_multi_rank_bucket_allreduce`, on by
default) and gather each rank's updated weights; stage 2 sums after each backward pass, stage 1 once
an update. Stage 3 gathers weights for each forward pass and keeps them for the backward pass as far
as its reuse distance reaches, scatters sums of gradients after each backward pass, and gathers once
an update the small tensors that stay whole (its persistence threshold).
"""

from collections.abc import Sequence

from coordtok.config.schema import RunConfig
from coordtok.scaling.checkpoints import ZERO_ALIGNMENT, contents
from coordtok.scaling.memory import Zero
from coordtok.scaling.parameters import sizes, without_gradient


def messages(run: RunConfig, zero: Zero, ranks: int, passes: int) -> dict[str, float]:
    """Bytes of one update as DeepSpeed's comms logger counts them, by operation: of what a rank
    hands in. The norm of the gradients, a few bytes, is left out.

    passes: micro-batches of each rank.
    """
    if ranks == 1:
        return {}
    numbers, unused = sizes(run.model), without_gradient(run.model)
    if zero.stage < 3:
        summed = sum(numbers) - unused
        times = passes if zero.stage == 2 else 1
        owned = sum(_padded(group, ZERO_ALIGNMENT * ranks) for group in _groups(run)) / ranks
        gathered = zero.number * owned if zero.stage else 0.0
        return {
            "all_reduce": times * zero.sent * summed,
            "all_gather_into_tensor": gathered,
        }
    kept = [each for each in numbers if each <= zero.persistence]
    parted = [each for each in numbers if each > zero.persistence]
    again = min(max(0.0, sum(numbers) - zero.reuse / 2), sum(parted)) / ranks
    gathered = passes * (_shares(parted, ranks) + again) + _shares(kept, ranks)
    return {
        "all_gather_into_tensor": zero.number * gathered,
        "reduce_scatter_tensor": zero.sent * passes * (ranks * _shares(numbers, ranks) - unused),
    }


def link_bytes(run: RunConfig, zero: Zero, ranks: int, passes: int) -> float:
    """What a rank sends to the others for one update, by rings."""
    times = {
        "all_reduce": 2 * (ranks - 1) / ranks,
        "all_gather_into_tensor": ranks - 1,
        "reduce_scatter_tensor": (ranks - 1) / ranks,
    }
    return sum(times[name] * each for name, each in messages(run, zero, ranks, passes).items())


def _groups(run: RunConfig) -> list[int]:
    """Numbers of each parameter group of the optimiser (train.optim)."""
    groups, _ = contents(run)
    return [sum(group.values()) for group in groups]


def _shares(sizes: Sequence[int], ranks: int) -> int:
    """Numbers of one rank's equal shares of tensors, each padded."""
    return sum(-(-each // ranks) for each in sizes)


def _padded(numbers: int, to: int) -> int:
    return -(-numbers // to) * to
