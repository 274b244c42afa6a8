"""Exponential moving average of the fp32 master weights, sharded as they are.

Each rank averages the slices that its optimiser owns, so the average costs 4 bytes per parameter
over all ranks, and no communication. In bf16 an average at 0.9999 never moves: the masters and the
average are fp32.

On disk every rank writes `ema_rank_00000.safetensors` (`coordtok.train.slices`).
"""

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from coordtok import distributed
from coordtok.config.training import EMAConfig
from coordtok.errors import CheckpointError
from coordtok.train.masters import Masters
from coordtok.train.slices import Slice, fill_slices, write_slices

FILE = "ema_rank_{:05d}.safetensors"


class EMA:
    """`decay` x average + (1 - `decay`) x weights after every step; in the first steps less of the
    average where there is a warm-up."""

    def __init__(self, engine: Any, config: EMAConfig) -> None:
        self._config = config
        self._masters = Masters(engine)
        self.slices = {
            name: Slice(start, values.detach().clone())
            for name, (start, values) in self._masters.slices().items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights of `step` (1, 2, ...) into the average."""
        masters = self._masters.slices()
        averages = [average.values for average in self.slices.values()]
        weights = [masters[name].values for name in self.slices]
        if averages:
            torch._foreach_lerp_(averages, weights, 1 - ema_decay(self._config, step))

    def applied(self) -> AbstractContextManager[None]:
        """The averages in place of the weights that compute. All ranks enter and leave together."""
        return self._masters.replaced(self.slices)

    def save(self, folder: Path) -> None:
        """Write this rank's file into `folder`."""
        write_slices(self.slices, folder / FILE.format(distributed.rank()))

    def load(self, folder: Path) -> None:
        """Take the averages from `folder`, saved by any number of ranks."""
        fill_slices(self.slices, _files(folder))


def ema_decay(config: EMAConfig, step: int) -> float:
    """Share of the average that is kept at `step` (1, 2, ...)."""
    return min(config.decay, (1 + step) / (10 + step)) if config.warmup else config.decay


def has_ema(folder: Path) -> bool:
    """Whether the checkpoint at `folder` holds an average."""
    return (folder / FILE.format(0)).is_file()


def read_ema(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The whole averages of a checkpoint, fp32, of the parameters with these names and shapes."""
    whole = {name: Slice(0, torch.empty(math.prod(shape))) for name, shape in shapes.items()}
    fill_slices(whole, _files(folder))
    return {name: whole[name].values.view(shape) for name, shape in shapes.items()}


def _files(folder: Path) -> list[Path]:
    """The files of all ranks."""
    paths = sorted(folder.glob(FILE.format(0).replace("00000", "*")))
    if not paths:
        raise CheckpointError(
            f"{folder} holds no EMA; set ema.decay=0 or start a new run with train.init_from"
        )
    return paths
