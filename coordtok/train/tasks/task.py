"""What the loop asks of whatever is trained: a tokenizer or a generator.

Every method that takes the engine is collective: all ranks call it as often, because the forward
pass is collective under ZeRO-3.

Shapes: B clips, F frames, H rows, W columns, 3 colours.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from coordtok.config.schema import RunConfig
from coordtok.data.clip_reader import ClipBatch
from coordtok.data.loader import Batch
from coordtok.data.sample import SampleReader
from coordtok.data.shards import OpenedShards


class ClipScore(NamedTuple):
    """A clip's scores by name, and videos (T, H, W, 3) in [-1, 1] to look at beside each other."""

    values: dict[str, float]
    videos: list[torch.Tensor]


class Headline(NamedTuple):
    """The score that progress lines and curves show."""

    name: str
    label: str
    digits: int
    unit: str
    baselines: Mapping[str, str]
    """Scores to compare it with, where there are any, and of what they are."""

    @property
    def axis(self) -> str:
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def say(self, values: Mapping[str, float]) -> str:
        """PSNR 25.80 dB (mean frame 21.68)."""
        beside = [
            f"{what} {values[name]:.{self.digits}f}"
            for name, what in self.baselines.items()
            if name in values
        ]
        text = f"{self.label} {values[self.name]:.{self.digits}f} {self.unit}".strip()
        return f"{text} ({', '.join(beside)})" if beside else text


class Task(Protocol):
    model_class: type[Any]
    """Of the models that it trains, each made from its config alone."""
    caption: str
    """What the pictures of a run show."""
    usage: str
    """What to type with an export of a finished run, exports/{name}, and next to it."""
    headline: Headline
    score_settings: dict[str, Any]
    """What the scores depend on, logged beside them."""
    facts: dict[str, Any]
    """Plain JSON that was fixed when the run began; every checkpoint keeps it."""

    @classmethod
    def for_run(
        cls,
        run: RunConfig,
        device: torch.device,
        datasets: Sequence[OpenedShards],
        facts: dict[str, Any] | None,
    ) -> "Task":
        """The task of `run` on its opened datasets; facts: of the checkpoint that goes on.

        Raises:
            UserError: the config and the data do not go together.
        """
        ...

    @classmethod
    def export_settings(cls, run: RunConfig, facts: dict[str, Any]) -> Any:
        """How an export of the model is meant to be used: the settings of its card."""
        ...

    def build_model(self) -> nn.Module: ...

    def fitted_weights(self) -> dict[str, torch.Tensor]:
        """Weights that the data decides before the first step, by parameter name; asked of one
        rank, and none by default."""
        ...

    def reader(self) -> SampleReader: ...

    def loss(self, engine: Any, batch: Batch) -> dict[str, torch.Tensor]:
        """Of each clip, (B,) float32: "loss" is trained on, anything else is logged beside it."""
        ...

    def forward_check(self, engine: Any) -> float:
        """Loss on a fixed input: what a checkpoint's weights must reproduce when loaded."""
        ...

    def score(self, engine: Any, batch: ClipBatch) -> dict[int, ClipScore]:
        """Of each clip that is there, by its number."""
        ...

    def warning(self, values: dict[str, float]) -> str:
        """What people should hear of held-out scores beside the headline; empty where nothing."""
        ...

    def samples(self, engine: Any, averaged: AbstractContextManager[None]) -> list[np.ndarray]:
        """Lines (F, H, W, 3) uint8 of a picture of what the model makes, on rank 0; none by
        default. Within `averaged` the engine computes with the averaged weights.

        A `UserError` costs the picture alone; one that only some ranks raise must come after all
        that the ranks do together."""
        ...
