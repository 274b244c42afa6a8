"""One run from its config to its last step: every part is made here, in order, and handed to the
loop."""

import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from coordtok import distributed
from coordtok.config.models import DiTModelConfig, TokenizerModelConfig
from coordtok.config.schema import RunConfig
from coordtok.data.clip_reader import ClipReader
from coordtok.data.clips import Clip, one_per_sample
from coordtok.data.latents import LatentSpec
from coordtok.data.loader import TrainLoader
from coordtok.data.sequence import LoaderState
from coordtok.data.shards import OpenedShards, open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import CheckpointError, as_typed
from coordtok.scaling.memory import input_bytes
from coordtok.scaling.memory_needs import check_memory, state_bytes
from coordtok.scaling.parameters import parameters
from coordtok.train.checkpoint import TrainState, read_state, restore
from coordtok.train.checkpoint_folder import rewind
from coordtok.train.checkpoint_index import DamagedCheckpoint
from coordtok.train.ema import EMA
from coordtok.train.engine import Sharding, build_engine, load_sharding, rank_batch
from coordtok.train.initialise import initialise_from, initialise_with
from coordtok.train.looks import Looks
from coordtok.train.loop import Progress, Trainer
from coordtok.train.masters import Masters
from coordtok.train.monitor import Monitor
from coordtok.train.next_steps import next_steps, nothing_to_do, where_it_is
from coordtok.train.resume import check_same_run, choose_checkpoints, data_changed, is_inside
from coordtok.train.run_folder import RunFolder
from coordtok.train.saver import Saver
from coordtok.train.signals import StopRequest, watch_launcher
from coordtok.train.start import summary
from coordtok.train.tasks.kinds import task_class
from coordtok.train.tasks.task import Task
from coordtok.train.trackers import check_trackers
from coordtok.train.validation import HeldOut

CHECK_TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
"""Largest relative change of the forward check across a save and a load."""


def train(
    run: RunConfig,
    sharding_path: str,
    resume: str = "auto",
    allow_grown_data: bool = False,
    check: bool = False,
) -> bool:
    """Train `run`, continuing what its folder holds as `resume` says ("auto", "none" or a path).

    check: make everything, train one step in memory, and write nothing.

    Returns whether there is nothing left to do; False if a signal stopped the run, which then has
    saved.
    """
    stop = StopRequest().install()
    watch_launcher()
    distributed.setup()
    sharding = load_sharding(sharding_path, run, distributed.world_size())
    distributed.together(lambda: _check_memory(run, sharding))
    folder = RunFolder(run.run_dir)
    with ExitStack() as stack:
        distributed.run_on_main(lambda: stack.enter_context(folder.owned()))
        _check_shared(folder)
        started = _start(run, sharding, folder, resume, allow_grown_data, stop)
        if started is None:
            return True
        trainer, checkpoint = started
        stack.callback(trainer.batches.close)
        if check:
            _say(trainer.check())
            return True
        if checkpoint is not None and is_inside(checkpoint, folder):
            distributed.run_on_main(lambda: rewind(folder.checkpoints, checkpoint))
        trainer.begin()
        stack.callback(trainer.monitor.close)
        stack.enter_context(trainer.saver)
        finished = trainer.fit()
    run, step = trainer.run, trainer.progress.step
    _say(next_steps(folder, run, step) if finished else where_it_is(folder, run, step))
    distributed.barrier()  # launchers end the others when the first leaves with another code than 0
    return finished


def _start(
    run: RunConfig,
    sharding: Sharding,
    folder: RunFolder,
    resume: str,
    allow_grown_data: bool,
    stop: StopRequest,
) -> tuple[Trainer, Path | None] | None:
    """The trainer of a run at the newest undamaged checkpoint that `resume` means, and that one, or
    at the beginning; None of a finished run."""
    for checkpoint in choose_checkpoints(folder, resume):
        try:
            state = None
            if checkpoint is not None:
                state = distributed.together(partial(read_state, checkpoint))
            if state is not None and state.step >= run.train.steps:
                _say(
                    nothing_to_do(checkpoint, state.step, run), next_steps(folder, run, state.step)
                )
                return None
            if state is not None:
                sharding = sharding.resuming(state.precision)
            parts = prepare(run, state, allow_grown_data)
            _say(summary(parts.run, sharding, parts.data, parts.held_out, checkpoint, state))
            return assemble(parts, sharding, folder, checkpoint, state, stop), checkpoint
        except DamagedCheckpoint as error:
            if checkpoint is None:  # what is damaged is that of train.init_from
                raise
            if resume != "auto":
                raise CheckpointError(f"--resume: {error}; choose another checkpoint") from None
            if distributed.is_main():
                print(f"warning: {error}; trying older", file=sys.stderr)
    raise CheckpointError(
        f"every checkpoint in {folder.checkpoints} is damaged; restore one, or start anew in "
        "another run_dir"
    )


def _check_memory(run: RunConfig, sharding: Sharding) -> None:
    """Raise a ConfigError for a run that cannot fit: here, and not when hours have gone by."""
    ranks = distributed.world_size()
    state = state_bytes(run, ranks, sharding.stage, sharding.dtype.itemsize)
    clips = rank_batch(run, ranks) * input_bytes(run.model)
    if distributed.device().type == "cpu":
        check_memory(
            distributed.local_ranks() * (state + clips),
            f"training {sum(parameters(run.model).values()):,} parameters on batches of "
            f"{run.train.global_batch} clips",
            "choose a smaller model, train.micro_batch, or more machines",
        )


def _check_shared(folder: RunFolder) -> None:
    owner = distributed.broadcast(folder.owner)

    def check() -> None:
        if folder.owner != owner:
            raise CheckpointError(
                f"{folder.path} is not the same folder on all machines; put run_dir on a disk that "
                "they share"
            )

    distributed.together(check)


def _say(*texts: str) -> None:
    if distributed.is_main():
        print(as_typed("\n".join(texts)), flush=True)


class Parts(NamedTuple):
    """What a run has before its model is built."""

    run: RunConfig
    """What its data decide is filled in."""
    task: Task
    progress: Progress
    loader: TrainLoader
    held_out: HeldOut | None
    data: list[dict[str, Any]]
    """Of each dataset what a checkpoint keeps of it."""


def prepare(run: RunConfig, state: TrainState | None, allow_grown_data: bool) -> Parts:
    """The data and the task of a run, at `state` or at the beginning."""
    distributed.together(lambda: check_trackers(run))
    datasets = distributed.together(
        lambda: [_open(run, source.path, source.weight) for source in run.data.shards]
    )
    run = distributed.together(lambda: _with_planes(run, datasets[0]))
    data = _describe(run, datasets)
    if any(other != data for other in distributed.gather(data)):
        raise CheckpointError("data.shards differ between machines: give all of them the same")
    if state is not None:
        check_same_run(state, run, data, allow_grown_data)
    facts = None if state is None else state.facts
    task = distributed.together(
        lambda: task_class(run.model).for_run(run, distributed.device(), datasets, facts)
    )
    progress = _progress(state, datasets, data)
    loader = distributed.together(lambda: _train_loader(run, task, datasets, progress.loader))
    held_out = distributed.together(lambda: _held_out(run, task))
    return Parts(run, task, progress, loader, held_out, data)


def assemble(
    parts: Parts,
    sharding: Sharding,
    folder: RunFolder,
    checkpoint: Any,
    state: TrainState | None,
    stop: StopRequest,
) -> Trainer:
    """The trainer of a run, at the state of `checkpoint` or at the beginning."""
    run = parts.run
    engine, masters, ema = _engine(run, sharding, parts.task, checkpoint, state)
    keep = run.train.keep_last
    saver = Saver(folder.checkpoints, masters, ema, keep, run.train.async_save)
    monitor = Monitor(run, folder)
    looks = Looks(run.train, parts.task, engine, ema, parts.held_out, monitor)
    return Trainer(
        run, sharding, folder, parts.task, engine, ema, saver, iter(parts.loader), looks,
        parts.data, parts.progress, monitor, stop,
    )  # fmt: skip


def _open(run: RunConfig, path: str, weight: float = 1.0) -> OpenedShards:
    """Shards; a tokenizer's may be a folder of videos as well."""
    size = run.model.video_size if isinstance(run.model, TokenizerModelConfig) else None
    return open_shards(path, weight, run.data.io_retries, size)


def _with_planes(run: RunConfig, dataset: OpenedShards) -> RunConfig:
    """A generator's planes are those of its latents, where the config leaves them open."""
    if not isinstance(run.model, DiTModelConfig):
        return run
    found = LatentSpec.of(dataset.index, dataset.location).latent
    return replace(run, model=run.model.for_latent(found))


def _describe(run: RunConfig, datasets: list[OpenedShards]) -> list[dict[str, Any]]:
    return [
        {
            "path": source.path,
            "weight": source.weight,
            "fingerprint": opened.index.fingerprint,
            "samples": opened.index.samples,
            "fps": opened.index.video.fps,
        }
        for source, opened in zip(run.data.shards, datasets)
    ]


def _progress(
    state: TrainState | None, datasets: list[OpenedShards], data: list[dict[str, Any]]
) -> Progress:
    start = LoaderState.start(datasets)
    if state is None:
        return Progress(0, 0.0, 0, start)
    loader = LoaderState.from_json(state.loader)
    if data_changed(state, data):
        loader = loader.at_next_epoch(start)
    return Progress(state.step, state.seconds, state.skipped, loader)


def _train_loader(
    run: RunConfig, task: Task, datasets: list[OpenedShards], state: LoaderState
) -> TrainLoader:
    on_gpu = distributed.device().type == "cuda"
    read = task.reader()
    if on_gpu and run.data.planes and isinstance(read, VideoWindows):
        read = read.as_stored([dataset.index for dataset in datasets])
    return TrainLoader(
        datasets,
        read,
        seed=run.seed,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        micro_batch=rank_batch(run, distributed.world_size()),
        workers=run.data.workers,
        prefetch=run.data.prefetch,
        shuffle_block=run.data.shuffle_block,
        state=state,
        pin_memory=on_gpu,
    )


def _held_out(run: RunConfig, task: Task) -> HeldOut | None:
    """A window of every held-out sample, the same ones every time."""
    if run.data.val_shards is None:
        return None
    dataset = _open(run, run.data.val_shards)
    read = task.reader()
    clips = one_per_sample(dataset.index, read.frames, run.seed)

    def reader(clips: Sequence[Clip]) -> ClipReader:
        return ClipReader(
            dataset,
            clips,
            read,
            batch=run.train.eval_batch,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            workers=run.data.workers,
            prefetch=run.data.prefetch,
        )

    return HeldOut(reader(clips), reader(clips[: run.train.sample_clips]), len(clips))


def _engine(
    run: RunConfig, sharding: Sharding, task: Task, checkpoint: Any, state: TrainState | None
) -> tuple[Any, Masters, EMA | None]:
    """The engine, its masters and their average, with the checkpoint's weights, those of
    `train.init_from`, or fresh ones."""
    engine, masters = build_engine(task.build_model, run, sharding)
    if state is None and run.train.init_from is not None:
        initialise_from(masters, run.model, run.train.init_from)
    elif state is None:
        initialise_with(masters, task.fitted_weights)
    ema = EMA(masters, run.ema) if run.ema.decay else None
    if state is not None:
        restore(checkpoint, masters, ema)
        engine.global_steps = state.step
        _compare_forward(task.forward_check(engine), state, sharding)
    return engine, masters, ema


def _compare_forward(found: float, state: TrainState, sharding: Sharding) -> None:
    tolerance = max(CHECK_TOLERANCE[sharding.precision], CHECK_TOLERANCE[state.precision])
    if not math.isclose(found, state.forward_check, rel_tol=tolerance):
        raise CheckpointError(
            f"the loaded weights score {found} on the check clip, but the checkpoint of step "
            f"{state.step} recorded {state.forward_check}; it is damaged or of another model"
        )
