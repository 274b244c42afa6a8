"""What a video of a generator costs on this machine: seconds and memory of sampling its latents and
of decoding them.

Both are done as `scripts/sample.py` does them, but for the mp4 files: a batch of latents at a time,
then one video of it after the other.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import torch

from coordtok.benchmarks.table import Report, table
from coordtok.benchmarks.untrained import untrained_generator, untrained_tokenizer
from coordtok.config.load import to_dict
from coordtok.config.sampling import SamplerConfig
from coordtok.config.schema import RunConfig
from coordtok.diffusion.samplers import evaluations
from coordtok.errors import ConfigError
from coordtok.geometry.pixels import to_uint8
from coordtok.geometry.planes import Planes
from coordtok.inference.generation import Generation, chunks, generate_chunk
from coordtok.inference.sample_videos import check_pair, tokenizer_folder
from coordtok.models.dit import TriplaneDiT
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import TokenizerId
from coordtok.pretrained.fingerprint import fingerprint
from coordtok.progress import ProgressBar
from coordtok.train.peak import peak_bytes, peak_kind, reset_peak

T = TypeVar("T")


class Pair(NamedTuple):
    """A generator and the tokenizer of its latents."""

    generator: TriplaneDiT
    tokenizer: CoordTok
    trained: bool


class Spent(NamedTuple):
    """On one phase of a batch."""

    seconds: float
    peak_bytes: int


class Made(NamedTuple):
    """One batch of videos."""

    generator: Spent
    decoder: Spent
    evaluations: int


def trained_pair(
    model: str, tokenizer: str | None, device: torch.device | str, dtype: torch.dtype | None
) -> Pair:
    """Two exports; by default the tokenizer is where it lay when its latents were made.

    Raises:
        CheckpointError: one of them cannot be loaded, or they do not belong together.
    """
    generator = TriplaneDiT.from_pretrained(model, device, dtype)
    folder = tokenizer_folder(generator, tokenizer)
    decoder = CoordTok.from_pretrained(folder, device, dtype)
    check_pair(generator, decoder, TokenizerId(folder, fingerprint(folder)))
    return Pair(generator, decoder, True)


def untrained_pair(
    run: RunConfig, tokenizer: RunConfig, device: torch.device | str, dtype: torch.dtype | None
) -> Pair:
    """What two configs train, with random weights.

    Raises:
        ConfigError: a config is of the wrong kind.
        CheckpointError: they do not belong together.
    """
    generator = untrained_generator(run, device, dtype)
    decoder = untrained_tokenizer(tokenizer, device, dtype)
    check_pair(generator, decoder, TokenizerId("of --tokenizer-config", ""))
    return Pair(generator, decoder, False)


@torch.no_grad()
def measure_sampling(pair: Pair, sampler: SamplerConfig, num: int, batch: int) -> Report:
    """Make `num` videos, `batch` latents at a time; classes take turns where the model has some.

    Raises:
        ConfigError: `num` is no multiple of `batch`, or settings that do not fit the model.
        CheckpointError: what comes out is not finite.
    """
    labels = tuple(range(pair.generator.config.classes))
    how = Generation(sampler, labels=labels, batch=batch)
    if num < 1 or num % batch:
        raise ConfigError(
            f"--num {num}: it must be a multiple of --batch {batch}: a batch that is not full "
            "takes as long as a full one"
        )
    if sampler.name == "dopri5" and not pair.trained:
        raise ConfigError(
            "--sampler dopri5: how many steps it takes depends on the weights; measure an export "
            "with --model, or choose another sampler"
        )
    _warm_up(pair, how)
    batches = chunks(num, batch)
    steps = evaluations(sampler)
    with ProgressBar(total=steps and steps * len(batches), unit="step", desc="sample") as bar:
        made = [_make(pair, chunk, how, bar.update) for chunk in batches]
    return _report(pair, how, made)


def _warm_up(pair: Pair, how: Generation) -> None:
    """One evaluation and one pass of the decoder: the first of its size is slower."""
    one_step = replace(how, sampler=replace(how.sampler, name="euler", steps=1))
    planes = _latents(pair.generator, range(how.batch), one_step, lambda: None)
    pair.tokenizer.decode(planes.one(0), [0])


def _make(pair: Pair, chunk: range, how: Generation, on_evaluation: Callable[[], object]) -> Made:
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1
        on_evaluation()

    def decode() -> None:
        for place in range(len(chunk)):
            to_uint8(pair.tokenizer.decode(planes.one(place))).cpu()

    device = pair.generator.device
    sampling, planes = _spent(device, lambda: _latents(pair.generator, chunk, how, count))
    decoding, _ = _spent(device, decode)
    return Made(sampling, decoding, counted)


def _latents(
    model: TriplaneDiT, chunk: range, how: Generation, on_evaluation: Callable[[], object]
) -> Planes:
    """As the tokenizer takes them."""
    planes = generate_chunk(model, model.config, model.device, chunk, how, on_evaluation)
    return model.statistics.denormalise(planes)


def _spent(device: torch.device, action: Callable[[], T]) -> tuple[Spent, T]:
    """What `action` takes, the device's work included, and what it gives."""
    reset_peak(device)
    _wait(device)
    began = time.perf_counter()
    result = action()
    _wait(device)
    return Spent(time.perf_counter() - began, peak_bytes(device)), result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _report(pair: Pair, how: Generation, made: list[Made]) -> Report:
    settings = _settings(pair, how, len(made))
    figures = _figures(how, made)
    total = figures["seconds_per_video"]
    rows = [["of a video", "s", "share", "peak memory, MiB"]]
    for name in ("generator", "decoder"):
        seconds, peak = figures[name]["seconds_per_video"], figures[name]["peak_bytes"]
        share = f"{100 * seconds / total:.0f} %"
        rows.append([name, f"{seconds:.3f}", share, f"{peak / 2**20:,.0f}"])
    rows.append(["both", f"{total:.3f}", "", ""])
    kind = peak_kind(pair.generator.device)
    weights = "trained" if pair.trained else "random"
    frames, height, width = pair.tokenizer.config.video_size
    text = [
        f"videos of {frames} frames of {height} x {width}, {settings['videos']} made, {how.batch} "
        f"at a time, in {settings['compute']} on {settings['device']}, {weights} weights; "
        f"{how.sampler.name}; medians:",
        table(rows),
        f"{figures['generator']['evaluations']} evaluations of "
        f"{figures['generator']['ms_per_evaluation']:.1f} ms for {how.batch} at a time, the "
        "sampler's own work included",
        f"memory is that of the whole {kind} while a phase runs, the weights of both models "
        "included",
    ]
    return Report({"settings": settings, "sample": figures}, "\n".join(text))


def _figures(how: Generation, made: list[Made]) -> dict[str, Any]:
    taken = statistics.median_low([each.evaluations for each in made])
    each_ms = [1000 * each.generator.seconds / each.evaluations for each in made]
    return {
        "seconds_per_video": statistics.median(
            (each.generator.seconds + each.decoder.seconds) / how.batch for each in made
        ),
        "generator": {
            **_phase([each.generator for each in made], how.batch),
            "evaluations": taken,
            "ms_per_evaluation": statistics.median(each_ms),
        },
        "decoder": _phase([each.decoder for each in made], how.batch),
    }


def _phase(spent: list[Spent], batch: int) -> dict[str, float]:
    return {
        "seconds_per_video": statistics.median(each.seconds for each in spent) / batch,
        "peak_bytes": max(each.peak_bytes for each in spent),
    }


def _settings(pair: Pair, how: Generation, batches: int) -> dict[str, Any]:
    generator, tokenizer = pair.generator, pair.tokenizer
    return {
        "videos": batches * how.batch,
        "batch": how.batch,
        "sampler": to_dict(how.sampler),
        "compute": str(next(generator.parameters()).dtype).removeprefix("torch."),
        "device": str(generator.device),
        "weights": "trained" if pair.trained else "random",
        "points_per_pass": tokenizer.points_per_pass,
        "generator": to_dict(generator.config),
        "tokenizer": to_dict(tokenizer.config),
    }
