"""What the check of a GPU runs: presets at their width and few layers, or in full, and on a CPU the
same at tiny sizes, to rehearse."""

from dataclasses import dataclass
from pathlib import Path

from coordtok.config.load import load_config
from coordtok.config.schema import RunConfig

MODES = {
    "eager": (),
    "compiled": ("train.compile=true",),
    "checkpointed": ("train.activation_checkpointing=true",),
    "selective": ("train.activation_checkpointing=selective",),
    "both": ("train.compile=true", "train.activation_checkpointing=true"),
}
STAGES = (1, 2, 3)
PRESETS = ("tokenizer_l", "dit_l")
STEPS = 3

_LAYERS = {
    "tokenizer_l": ("model.video_layers=2", "model.plane_layers=2", "model.decoder_layers=2"),
    "dit_l": ("model.layers=2",),
}
_TINY = {
    "tokenizer_l": (
        "model.frames=8", "model.height=32", "model.width=32", "model.video_patch=[4,8,8]",
        "model.plane_size=[4,4,4]", "model.plane_patch=[2,2,2]", "train.points=16",
    ),
    "dit_l": ("model.plane_size=[4,4,4]", "model.plane_channels=4"),
}  # fmt: skip
_NARROW = ("model.dim=32", "model.heads=2")
_FULL_BATCH = {"tokenizer_l": 32, "dit_l": 64}
"""Clips of a micro-batch and a step, so that weights, states and what a clip keeps for the backward
pass (coordtok.scaling.activations) fit 80 GB."""


@dataclass(frozen=True)
class Sizes:
    """Real, or tiny ones to rehearse with."""

    rehearse: bool

    def few_layers(self, preset: str, work: Path, *overrides: str) -> RunConfig:
        """At the preset's width, two layers of each kind, two micro-batches of two clips, on the
        noise and the weights that `work` has for it."""
        own = [
            *_LAYERS[preset], *self._tiny(preset), "train.global_batch=4", "train.micro_batch=2",
            "data.workers=0", "ema.decay=0.9", f"data.shards={work / f'noise_{preset}'}",
            f"train.init_from={work / f'start_{preset}'}",
        ]  # fmt: skip
        return load_config(preset, [*own, *overrides])

    def full(self, preset: str, share: int, *overrides: str) -> RunConfig:
        """The whole model, one micro-batch a step, of one in `share` clips of what should fit."""
        tiny = (*self._tiny(preset), *_LAYERS[preset]) if self.rehearse else ()
        batch = (2 if self.rehearse else _FULL_BATCH[preset]) // share
        own = [*tiny, f"train.global_batch={batch}", f"train.micro_batch={batch}"]
        if self.rehearse:
            own.append("data.workers=0")
        return load_config(preset, [*own, "data.val_shards=null", *overrides])

    def _tiny(self, preset: str) -> tuple[str, ...]:
        return (*_TINY[preset], *_NARROW) if self.rehearse else ()
