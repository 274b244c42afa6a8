"""What a run shows of itself: scores, pictures and a film at every validation, before the first
step and where a signal stops it."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from coordtok.config.schema import TrainConfig
from coordtok.data.loader import Batch
from coordtok.errors import UserError
from coordtok.train.ema import EMA
from coordtok.train.monitor import Monitor
from coordtok.train.tasks.task import Task
from coordtok.train.validation import HeldOut, Look, look, look_at_training, validate


@dataclass(frozen=True)
class Looks:
    """Looks at held-out clips and at those just trained on, and shows what it found."""

    config: TrainConfig
    task: Task
    engine: Any
    ema: EMA | None
    held_out: HeldOut | None
    monitor: Monitor

    def validate(self, step: int, trained_on: Batch) -> UserError | None:
        """Score and show; what all ranks found wrong with the data, to raise after saving."""
        try:
            self._validate(step, trained_on)
        except UserError as error:
            return error
        return None

    def first(self, batch: Batch) -> Look:
        """Few clips, for pictures before and after a run: held-out ones where there are any, else
        those of the batch."""
        shown = self.config.sample_clips
        if self.held_out is not None:
            return look(self.task, self.engine, self.held_out.first, shown)
        return look_at_training(self.task, self.engine, batch, self.config.eval_batch, shown)

    def show(self, step: int, found: Look) -> None:
        """Pictures of `first`, and its scores in a line."""
        kind = "train" if self.held_out is None else "held_out"
        self.monitor.picture(step, found.rows, kind)
        self.monitor.movie(step, found.movie, kind)
        self.monitor.say(f"step {step}: {self.in_words(found)}")

    def in_words(self, found: Look) -> str:
        """Scores of `first`."""
        if not found.clips:
            return "none of the clips that pictures show can be read"
        kind = "training" if self.held_out is None else "held-out"
        return f"{self.task.headline.say(found.values)} on the first {found.clips} {kind} clips"

    def _validate(self, step: int, trained_on: Batch) -> None:
        shown, say = self.config.sample_clips, self.task.headline.say
        trained = look_at_training(
            self.task, self.engine, trained_on, self.config.eval_batch, shown
        )
        values: dict[str, Any] = {f"train_{name}": mean for name, mean in trained.values.items()}
        message = f"{say(trained.values)} on clips just trained on"
        if self.held_out is not None:
            found = validate(self.task, self.engine, self.held_out.all, shown)
            for sample in found.skipped:
                self.monitor.say(f"warning: skipped unreadable held-out sample {sample}")
            values |= {f"val_{name}": mean for name, mean in found.values.items()}
            values |= {"val_clips": found.clips, "val_skipped": len(found.skipped)}
            message = f"{say(found.values)} on held-out, {message}"
            self.monitor.picture(step, found.rows)
            self.monitor.movie(step, found.movie)
            if warning := self.task.warning(found.values):
                message = f"{message}; {warning}"
        self.monitor.picture(step, trained.rows, "train")
        self._show_samples(step)
        self.monitor.log(step, {**values, **self.task.score_settings})
        self.monitor.say(f"step {step}: {message}")
        self.monitor.curves(self.task.headline)

    def _show_samples(self, step: int) -> None:
        """A picture of what the model makes; a young one may make nothing that can be shown, which
        ends no run."""
        averaged = nullcontext() if self.ema is None else self.ema.applied()
        try:
            rows = self.task.samples(self.engine, averaged)
        except UserError as error:
            self.monitor.say(f"warning: no picture of samples at step {step}: {error}")
            return
        self.monitor.picture(step, rows, "samples")
