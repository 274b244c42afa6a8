"""Weights out of what training leaves behind: checkpoints of any ZeRO stage and number of ranks.

DeepSpeed's own files are pickles: read only checkpoints you trust.
"""

from pathlib import Path
from typing import NamedTuple

import torch

from coordtok.config.load import build
from coordtok.config.schema import ModelConfig, RunConfig
from coordtok.errors import CheckpointError
from coordtok.pretrained.card import CONFIG, WEIGHTS
from coordtok.pretrained.read import read_export
from coordtok.train.checkpoint import MANIFEST, committed, read_state
from coordtok.train.masters import read_masters


class Weights(NamedTuple):
    """A model's config and its tensors by name."""

    model: ModelConfig
    tensors: dict[str, torch.Tensor]


def find_checkpoint(path: str) -> Path:
    """The complete checkpoint at `path`, or the newest one of the run there."""
    folder = Path(path)
    if (folder / "checkpoints").is_dir():
        folder = next(iter(committed(folder / "checkpoints")), folder)
    if not (folder / MANIFEST).is_file():
        raise CheckpointError(
            f"{path} holds no weights: neither {WEIGHTS} nor a complete checkpoint; name an "
            "export, a step_* folder or a run folder"
        )
    return folder


def read_weights(path: str) -> Weights:
    """The weights of an export, a checkpoint or a run's newest checkpoint (as trained, fp32)."""
    folder = Path(path)
    if (folder / CONFIG).is_file() or (folder / WEIGHTS).is_file():
        card, tensors = read_export(folder)
        return Weights(card.model, tensors)
    checkpoint = find_checkpoint(path)
    run = build(RunConfig, read_state(checkpoint).config)
    return Weights(run.model, read_masters(checkpoint))
