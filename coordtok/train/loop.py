"""The training loop, in the order things happen.

A step: forward and backward over the rank's micro-batches, update, look at what all ranks found,
average. The host waits for the device only where DeepSpeed looks at the gradient's norm, by which
it drops an update that is not finite, on all ranks. Each micro-batch is fetched while the device
works on the one before, and the loader's state that is saved is that of the clips already used.
"""

import math
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from coordtok import distributed
from coordtok.config.load import to_dict, to_yaml
from coordtok.config.schema import RunConfig
from coordtok.data.loader import Batch
from coordtok.data.sequence import LoaderState
from coordtok.errors import TrainingError, UserError
from coordtok.scaling.flops import training_step_flops
from coordtok.train.checkpoint import TrainState
from coordtok.train.clock import Clock
from coordtok.train.ema import EMA
from coordtok.train.engine import Sharding
from coordtok.train.looks import Looks
from coordtok.train.monitor import Monitor
from coordtok.train.optim import learning_rate, set_rate
from coordtok.train.peak import peaks
from coordtok.train.run_folder import RunFolder
from coordtok.train.saver import Saver
from coordtok.train.signals import StopRequest
from coordtok.train.tasks.sending import send_batch
from coordtok.train.tasks.task import Task
from coordtok.train.validation import Look


class StepResult(NamedTuple):
    losses: dict[str, float]
    """Mean over the global batch: "loss", and what the task reports beside it."""
    stop: bool
    data_error: bool


@dataclass
class Progress:
    """What the loop counts, and a checkpoint keeps."""

    step: int
    seconds: float
    skipped: int
    loader: LoaderState


@dataclass
class Trainer:
    """Everything a run's steps need, each part made by its owner (see `coordtok.train.run`)."""

    run: RunConfig
    sharding: Sharding
    folder: RunFolder
    task: Task
    engine: Any
    ema: EMA | None
    saver: Saver
    batches: Generator[tuple[Batch, LoaderState], None, None]
    looks: Looks
    data: list[dict[str, Any]]
    progress: Progress
    monitor: Monitor
    stop: StopRequest
    _data_error: UserError | None = field(default=None, init=False)
    _data_seconds: float = field(default=0.0, init=False)
    _next: tuple[Batch, LoaderState] | None = field(default=None, init=False)
    """This rank's next micro-batch and the loader's state after it."""
    _dropped: bool = field(default=False, init=False)
    """Whether the last update was dropped because a rank had no clips for it."""
    _saved: int = field(default=0, init=False)
    """The step of the last checkpoint, or of the start."""
    _last_batch: Batch | None = field(default=None, init=False)

    def check(self) -> str:
        """Train one step in memory and look at held-out clips; what was found, in words."""
        self.fetch_first()
        began = time.perf_counter()
        made = next(self.steps(), None)
        if made is None:
            distributed.raise_together(self._data_error)
        assert made is not None
        _, result = made
        seconds = time.perf_counter() - began
        memory = ", ".join(f"{name} {size:.2f}" for name, size in self._peaks().items())
        found = [f"one step: loss {result.losses['loss']:.4f}, {seconds:.1f} s, {memory}"]
        if self.looks.held_out is not None:
            found.append(self.looks.in_words(self._first_look()))
        return "\n".join(
            [
                "checked, and nothing written: all of the above can be made, and trains",
                *(f"  {line}" for line in found),
                "not checked: every sample (python -m data_prep.verify_shards DIR), room on disk",
            ]
        )

    def begin(self) -> None:
        """Take the run folder: from here on there is a run, and it is reported."""
        self.fetch_first()
        step = self._saved = self.progress.step
        before = self._first_look() if step == 0 else None
        distributed.run_on_main(lambda: self.folder.begin(step, to_yaml(self.run)))
        self.monitor.begin(step)
        if before is not None:
            self.looks.show(step, before)

    def fit(self) -> bool:
        """Train to the last step; False if a signal stopped the run before it."""
        last_step = self.run.train.steps
        clock = Clock(self.progress.seconds)
        for step, result in self.steps():
            self.progress.seconds = clock.total()
            self.monitor.step(result.losses["loss"], self.run.train.global_batch / clock.step())
            if self._due(step, self.run.train.log_every):
                self._log(step, result, clock)
            failure = None
            if self._due(step, self.run.train.eval_every):
                with clock.paused():
                    assert self._last_batch is not None
                    failure = self.looks.validate(step, self._last_batch)
            ending = result.stop or result.data_error or failure is not None
            if ending or self._due(step, self.run.train.save_every):
                with clock.paused():
                    self._save(wait=ending or step == last_step)
            if failure is not None:
                raise failure
            if result.data_error:
                distributed.raise_together(self._data_error)
            if result.stop and step < last_step:
                self.monitor.say(f"asked to stop: saved step {step} of {last_step}")
                with suppress(UserError):  # what is wrong with held-out clips can wait
                    self.looks.show(step, self._first_look())
                self.monitor.curves(self.task.headline)
                return False
        if self._dropped:
            if self.progress.step > self._saved:
                with clock.paused():
                    self._save(wait=True)
            distributed.raise_together(self._data_error)
        return True

    def steps(self) -> Iterator[tuple[int, StepResult]]:
        """Updates up to the last, or to one that is dropped because a rank lacks clips for it, each
        made when it is asked for, and nothing else."""
        for step in range(self.progress.step + 1, self.run.train.steps + 1):
            before = self.progress.loader
            result = self._step(step)
            if result is None:
                self._dropped, self.progress.loader = True, before
                return
            self.progress.step = step
            yield step, result

    def fetch_first(self) -> None:
        """Read the clips of the first step: before `steps`."""
        self._fetch()
        distributed.raise_together(self._data_error)

    def _first_look(self) -> Look:
        assert self._next is not None
        return self.looks.first(self._next[0])

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.run.train.steps

    def _fetch(self) -> None:
        """This rank's next micro-batch. What goes wrong is kept for all ranks to hear; the last one
        then stays in its place."""
        if self._data_error is not None:
            return
        began = time.perf_counter()
        try:
            batch, state = next(self.batches)
            self._next = send_batch(batch), state
        except UserError as error:
            self._data_error = error
        finally:
            self._data_seconds += time.perf_counter() - began

    def _step(self, step: int) -> StepResult | None:
        """One update, each micro-batch fetched after the backward pass of the one before; None if a
        rank lacks clips for it, so that no rank takes it."""
        set_rate(self.engine.optimizer, learning_rate(self.run.optim, step, self.run.train.steps))
        batches: list[Batch] = []
        losses: list[dict[str, torch.Tensor]] = []
        micro_batches = self.engine.gradient_accumulation_steps()
        while True:
            assert self._next is not None
            batch, self.progress.loader = self._next
            parts = self.task.loss(self.engine, batch)
            loss = parts["loss"].mean()
            if self._data_error is not None:  # the last clips again: have the update dropped
                loss = loss * math.nan
            self.engine.backward(loss)
            batches.append(batch)
            losses.append({name: loss_B.detach() for name, loss_B in parts.items()})
            if len(batches) == micro_batches:
                break
            self.engine.step()  # not at the accumulation boundary: only counts the micro-batch
            self._fetch()
        self._last_batch = batches[-1]
        is_whole = self._data_error is None
        if step < self.run.train.steps:
            self._fetch()
        merged = {name: torch.cat([parts[name] for parts in losses]) for name in losses[0]}
        found = self._found(batches, merged, is_whole)
        self.engine.step()
        result = self._result(step, batches, merged, found)
        if result is None:
            return None
        if not self.engine.was_step_applied():
            raise TrainingError(self._not_finite(step))
        if self.ema is not None:
            self.ema.update(step)
        return result

    def _found(
        self, batches: list[Batch], losses: dict[str, torch.Tensor], is_whole: bool
    ) -> torch.Tensor:
        """Sums over all ranks, on the device, where they are not waited for: of each loss, of clips
        whose loss is not finite, and of what `_result` looks at beside them."""
        skipped = [sample for batch in batches for sample in batch.skipped]
        for sample in skipped:
            self.monitor.warn(f"skipped unreadable sample {sample}")
        flags = [self.stop.is_set, self._data_error is not None, not is_whole, len(skipped)]
        flags_4 = torch.tensor(flags, dtype=torch.float64)
        bad = (~torch.isfinite(losses["loss"])).sum().double()
        found = torch.cat(
            [
                torch.stack([*(loss_B.double().sum() for loss_B in losses.values()), bad]),
                flags_4.to(bad.device, non_blocking=True),
            ]
        )
        return distributed.sum_over_ranks(found)

    def _result(
        self, step: int, batches: list[Batch], losses: dict[str, torch.Tensor], found: torch.Tensor
    ) -> StepResult | None:
        """What all ranks found in this step, None if any had no clips for all of it; a loss that is
        not finite ends the run, naming the clips."""
        *sums, bad, stop, data_error, incomplete, skips = found.tolist()
        if incomplete:
            return None
        self.progress.skipped += int(skips)
        if bad:
            keys = [sample.key for batch in batches for sample in batch.ids]
            finite_B = torch.isfinite(losses["loss"]).tolist()
            own = [key for key, is_finite in zip(keys, finite_B) if not is_finite]
            named = [key for rank_keys in distributed.gather(own) for key in rank_keys]
            raise TrainingError(
                f"the loss is not finite at step {step} for {', '.join(named)}; the weights were "
                "not updated: look at these clips, or lower optim.lr and start again"
            )
        means = {name: total / self.run.train.global_batch for name, total in zip(losses, sums)}
        return StepResult(means, stop > 0, data_error > 0)

    def _log(self, step: int, result: StepResult, clock: Clock) -> None:
        lap = clock.lap()
        self.monitor.log(
            step,
            {
                **result.losses,
                "lr": learning_rate(self.run.optim, step, self.run.train.steps),
                "grad_norm": self._grad_norm(step),
                "clips_per_s": self.run.train.global_batch * lap.steps / lap.seconds,
                "tflops_per_rank": self._flops_per_rank() * lap.steps / lap.seconds / 1e12,
                **self._peaks(),
                "seconds": self.progress.seconds,
                "data_wait": self._data_seconds / lap.seconds,
                "clips": self.progress.loader.position,
                "skipped": self.progress.skipped,
            },
        )
        self._data_seconds = 0.0

    def _flops_per_rank(self) -> float:
        """Of a step's forward and backward passes, without what is recomputed."""
        flops = training_step_flops(self.run)
        return (flops.forward + flops.backward) / distributed.world_size()

    def _peaks(self) -> dict[str, float]:
        """Memory of the rank that has had the most."""
        everyones = distributed.gather(peaks(distributed.device()))
        return {name: max(each[name] for each in everyones) for name in everyones[0]}

    def _grad_norm(self, step: int) -> float:
        norm = float(self.engine.get_global_grad_norm())
        if not math.isfinite(norm):
            raise TrainingError(self._not_finite(step))
        return norm

    def _not_finite(self, step: int) -> str:
        return (
            f"the gradient is not finite at step {step}; nothing of it was saved: lower optim.lr "
            "or set optim.grad_clip, and start again from the last checkpoint"
        )

    def _save(self, wait: bool) -> None:
        """Save, and log what the last save cost; with `wait`, what this one did."""
        began = time.perf_counter()
        if not self._dropped:
            self._grad_norm(self.progress.step)
        loader = LoaderState.merge(distributed.gather(self.progress.loader))
        state = TrainState(
            step=self.progress.step,
            seconds=self.progress.seconds,
            loader=loader.to_json(),
            data=self.data,
            skipped=self.progress.skipped,
            config=to_dict(self.run),
            world_size=distributed.world_size(),
            zero_stage=self.sharding.stage,
            precision=self.sharding.precision,
            forward_check=self.task.forward_check(self.engine),
            facts=self.task.facts,
        )
        figures = [self.saver.save(state, began)]
        self._saved = state.step
        if wait:
            figures.append(self.saver.finish())
        for found in filter(None, figures):
            self.monitor.log(state.step, found)
