"""Exponential moving average of the fp32 master weights, sharded as they are.

Each rank averages the slices that its optimiser owns, where they are (on the host, if they are
offloaded), so the average costs 4 bytes per parameter over all ranks, and no communication. In bf16
an average at 0.9999 never moves: the masters and the average are fp32.
"""

from contextlib import AbstractContextManager

import torch

from coordtok.config.training import EMAConfig
from coordtok.train.masters import Masters
from coordtok.train.slices import Slice


class EMA:
    """`decay` x average + (1 - `decay`) x weights after every step; in the first steps less of the
    average where there is a warm-up."""

    def __init__(self, masters: Masters, config: EMAConfig) -> None:
        self._config = config
        self._masters = masters
        owned = masters.slices()
        self._weights = [weights for _, weights in owned.values()]
        self.slices = {
            name: Slice(start, values.clone()) for name, (start, values) in owned.items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights of `step` (1, 2, ...) into the average."""
        averages = [average.values for average in self.slices.values()]
        if averages:
            torch._foreach_lerp_(averages, self._weights, 1 - ema_decay(self._config, step))

    def applied(self) -> AbstractContextManager[None]:
        """The averages in place of the weights that compute. All ranks enter and leave together."""
        return self._masters.replaced(self.slices)


def ema_decay(config: EMAConfig, step: int) -> float:
    """Share of the average that is kept at `step` (1, 2, ...)."""
    return min(config.decay, (1 + step) / (10 + step)) if config.warmup else config.decay
