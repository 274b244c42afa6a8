"""What training a generator from latents saves: its real training steps, on latents that lie in
shards and on clips that are read from h264 shards and encoded on the way.

Both sides take turns in one run, with the same trainer, weights and loader settings. A step fetches
the clips of the next one, so that what it takes is one fetch of a side and one update of the
generator, which is the same for both. Reading, encoding and the rest are timed apart by waiting for
the device in between.

Shapes: B clips of a micro-batch, T frames, H rows, W columns.
"""

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from coordtok import distributed
from coordtok.benchmarks.bench_train import (
    lanes_for,
    reading,
    shared_folder,
    shown_steps,
    trainer_to_measure,
)
from coordtok.benchmarks.phases import Clock
from coordtok.benchmarks.synthetic import write_drift_shards
from coordtok.benchmarks.table import Report, table
from coordtok.benchmarks.untrained import generator_config, untrained_tokenizer
from coordtok.config.load import to_dict
from coordtok.config.schema import RunConfig
from coordtok.data.index import VideoSpec
from coordtok.data.loader import Batch, TrainLoader
from coordtok.data.sequence import LoaderState
from coordtok.data.shards import open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.geometry.planes import Planes
from coordtok.inference.encode_shards import Encoding, encode
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import TokenizerId
from coordtok.train.engine import Sharding, load_sharding, rank_batch
from coordtok.train.loop import Trainer
from coordtok.train.signals import watch_launcher

Batches = Iterator[tuple[Batch, LoaderState]]
Lap = dict[str, float]
"""Seconds of one step and of its parts."""

SIDES = {"latents": "from latents", "video": "encoded on the way"}
PARTS = {
    "step": "whole step",
    "batch": "getting its batch",
    "read": "- reading",
    "encode": "- encoding",
    "update": "the generator's own",
}
SAMPLES_PER_LANE = 2
_TURN = 5
_WARM_UP = 2


def measure_latents(
    run: RunConfig,
    tokenizer_run: RunConfig,
    sharding_path: str,
    steps: int,
    work_folder: str | None,
) -> Report:
    """Measure `steps` steps of each side; every rank calls this.

    run, tokenizer_run: what trains the generator and its tokenizer, whose weights are random.

    Raises:
        UserError: as training does, or configs that are not of a generator and its tokenizer.
    """
    watch_launcher()
    distributed.setup()
    generator_config(run)
    sharding = load_sharding(sharding_path, run, distributed.world_size())
    torch.manual_seed(run.seed)  # alike on all ranks
    tokenizer = untrained_tokenizer(tokenizer_run, distributed.device(), sharding.dtype)
    turns = list(_turns(steps, _settling(run)))
    with shared_folder(work_folder) as work:
        video, latents = _shards(run, tokenizer, work)
        run = reading(run, latents)
        # One more: the last step of a run fetches nothing.
        with trainer_to_measure(run, sharding, work, len(turns) + 1) as trainer:
            laps = _measure(trainer, _video_batches(run, tokenizer, video), tokenizer, turns)
    return _report(trainer.run, tokenizer, sharding, laps)


def _shards(run: RunConfig, tokenizer: CoordTok, work: Path) -> tuple[str, str]:
    """Folders of video, and of the latents of all of it."""
    video, latents = work / "video", work / "latents"
    clip = VideoSpec(*tokenizer.config.video_size, None)

    def write() -> str:
        video.mkdir()
        return write_drift_shards(
            video, clip, lanes=lanes_for(run), samples_per_shard=SAMPLES_PER_LANE
        )

    opened = open_shards(distributed.run_on_main(write))
    unnamed = TokenizerId("random weights", "random weights")
    encode(tokenizer, unnamed, opened, latents, Encoding(), progress=distributed.is_main())
    return str(video), str(latents)


def _video_batches(run: RunConfig, tokenizer: CoordTok, shards: str) -> Batches:
    """Clips as a tokenizer would be trained on them, with the settings of the generator's run."""
    loader = TrainLoader(
        [open_shards(shards)],
        VideoWindows(*tokenizer.config.video_size),
        seed=run.seed,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        micro_batch=rank_batch(run, distributed.world_size()),
        workers=run.data.workers,
        prefetch=run.data.prefetch,
        shuffle_block=run.data.shuffle_block,
        pin_memory=distributed.device().type == "cuda",
    )
    return iter(loader)


class _Sides:
    """The batches of one side or the other, as `side` says when one is asked for."""

    def __init__(self, sides: dict[str, Batches]) -> None:
        self._sides = sides
        self.side = next(iter(sides))

    def __iter__(self) -> "_Sides":
        return self

    def __next__(self) -> tuple[Batch, LoaderState]:
        return next(self._sides[self.side])


def _measure(
    trainer: Trainer, video: Batches, tokenizer: CoordTok, turns: Iterable[tuple[str, bool]]
) -> dict[str, list[Lap]]:
    clock = Clock(("read", "encode"))
    encoded = _encoded(_timed_reads(video, clock), tokenizer, clock)
    sides = _Sides({"latents": _timed_reads(trainer.batches, clock), "video": encoded})
    target: Any = trainer
    target.batches = sides
    laps: dict[str, list[Lap]] = {side: [] for side in SIDES}
    updates = shown_steps(trainer)
    for side, counts in turns:
        sides.side = side
        began = clock.now()
        next(updates)
        seconds, parts = clock.now() - began, clock.take()
        if counts:
            batch = sum(parts.values())
            laps[side].append({"step": seconds, "batch": batch, **parts, "update": seconds - batch})
    return laps


def _timed_reads(batches: Batches, clock: Clock) -> Batches:
    read = clock.timed("read", next)
    return iter(lambda: read(batches), None)


def _encoded(batches: Batches, tokenizer: CoordTok, clock: Clock) -> Batches:
    """Batches of clips as batches of latents, which stay where the tokenizer is."""

    @torch.no_grad()
    def encode_batch(video_BTHW3: torch.Tensor, frames_B: torch.Tensor) -> Planes:
        return tokenizer.encode(video_BTHW3, frames_B)

    timed_encode = clock.timed("encode", encode_batch)
    for batch, state in batches:
        rest = dict(batch.data)
        planes = timed_encode(rest.pop("video"), rest["num_frames"])
        yield Batch({**planes._asdict(), **rest}, batch.ids, batch.skipped), state


def _turns(steps: int, settling: int) -> Iterator[tuple[str, bool]]:
    """The side of every step, and whether the step counts: those after a change do not."""
    for first in range(0, steps, _TURN):
        for side in SIDES:
            yield from [(side, False)] * settling
            yield from [(side, True)] * min(_TURN, steps - first)


def _settling(run: RunConfig) -> int:
    """Steps after which nothing is left of what a side's loader read ahead while it waited."""
    ahead = run.data.workers * run.data.prefetch * distributed.world_size()
    return max(_WARM_UP, 1 - (-ahead // run.train.global_batch))


def _report(
    run: RunConfig, tokenizer: CoordTok, sharding: Sharding, laps: dict[str, list[Lap]]
) -> Report:
    figures: dict[str, Any] = {side: _medians(laps[side]) for side in SIDES}
    rows = [["ms", *SIDES.values(), "ratio"]]
    for part, name in PARTS.items():
        latents, video = (figures[side][f"{part}_ms"] for side in SIDES)
        ratio = f"{video / latents:.1f}" if part in ("step", "batch") else ""
        rows.append([name, f"{latents:.2f}", f"{video:.2f}", ratio])
    for part in ("step", "batch"):
        key = f"{part}_ms"
        figures[f"{part}_ratio"] = figures["video"][key] / figures["latents"][key]
    frames, height, width = tokenizer.config.video_size
    ranks, batch, workers = distributed.world_size(), run.train.global_batch, run.data.workers
    text = [
        f"a step from latents takes {figures['latents']['step_ms']:.1f} ms, one that encodes its "
        f"clips on the way {figures['video']['step_ms']:.1f} ms: {figures['step_ratio']:.1f} times "
        "as long",
        f"{batch} clips a step of {frames} frames of {height} x {width}, ranks {ranks}, "
        f"ZeRO-{sharding.stage}, {sharding.precision}, {workers} loader processes a rank; medians "
        f"of {len(laps['video'])} steps each, in turns:",
        table(rows),
        "the generator's own work is the same on both sides: where its time differs, loader "
        "processes or other programs took part of the machine",
    ]
    settings = {
        "ranks": ranks,
        "sharding": sharding.config,
        "run": to_dict(run),
        "tokenizer": to_dict(tokenizer.config),
    }
    return Report({"settings": settings, "latents": figures}, "\n".join(text))


def _medians(laps: list[Lap]) -> dict[str, Any]:
    """Median milliseconds of a step and its parts, and those of every step."""
    medians = {f"{part}_ms": 1000 * statistics.median(lap[part] for lap in laps) for part in PARTS}
    return {**medians, "ms_of_each_step": [round(1000 * lap["step"], 3) for lap in laps]}
