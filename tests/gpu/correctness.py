"""Whether a GPU computes what a CPU does: losses of steps, averages, decoding, sampling."""

import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from coordtok import distributed
from coordtok.benchmarks.bench_train import reading, trainer_to_measure
from coordtok.benchmarks.synthetic import write_noise_latents, write_noise_shards
from coordtok.benchmarks.untrained import untrained_generator
from coordtok.config.models import DiTModelConfig
from coordtok.config.sampling import SamplerConfig
from coordtok.config.schema import RunConfig
from coordtok.data.index import VideoSpec
from coordtok.inference.generation import Generation, generate_chunk
from coordtok.models.dit import TriplaneDiT
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import Card, GeneratorSettings, Origin, TokenizerSettings
from coordtok.pretrained.write import write_export
from coordtok.train.engine import load_sharding
from coordtok.train.loop import Trainer
from coordtok.train.masters import Masters
from tests.gpu.record import Record, read_lines
from tests.gpu.sizes import MODES, PRESETS, STAGES, STEPS, Sizes

FP32_BOUND, BF16_BOUND, KERNEL_BOUND = 1e-3, 3e-2, 1e-2
"""Largest relative difference of a step's loss: fp32 and bf16 from the CPU's fp32, and compiled or
recomputed steps from plain ones of the same stage."""
EMA_BOUND, SAMPLE_BOUND = 1e-5, 1e-3


def prepare(work: Path, record: Record, sizes: Sizes) -> None:
    """Noise to train on, the weights that all begin with, a JSON of fp32."""
    (work / "fp32.json").write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    for preset in PRESETS:
        run, noise = sizes.few_layers(preset, work), work / f"noise_{preset}"
        noise.mkdir()
        if isinstance(run.model, DiTModelConfig):
            write_noise_latents(noise, run.model.latent, lanes=1, samples_per_shard=12)
        else:
            clip = VideoSpec(run.model.frames, run.model.height, run.model.width, None)
            write_noise_shards(noise, clip, lanes=1, shards_per_lane=1, samples_per_shard=12)
        model, card = _start(run)
        write_export(work / f"start_{preset}", card, model.state_dict())
        record.figures(
            "start", preset=preset, parameters=sum(p.numel() for p in model.parameters())
        )


def _start(run: RunConfig) -> tuple[CoordTok | TriplaneDiT, Card]:
    """A model in which nothing is zero, since a zero head hides all that comes before it."""
    torch.manual_seed(0)
    config = run.model
    if isinstance(config, DiTModelConfig):
        config = config.for_latent(config.latent)
        model = untrained_generator(replace(run, model=config), "cpu", None)
        settings: Any = GeneratorSettings(model.settings.statistics)
    else:
        model, settings = CoordTok(config), TokenizerSettings(run.train.points)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return model, Card(config, settings, Origin("raw"))


def reference(work: Path, record: Record, sizes: Sizes) -> None:
    """Losses in fp32 on a CPU, where this part is started without a GPU."""
    distributed.setup()
    for preset in PRESETS:
        with _trainer(sizes.few_layers(preset, work), str(work / "fp32.json")) as trainer:
            found = [result.losses["loss"] for _, result in trainer.steps()]
        record.figures("reference", preset=preset, losses=found)


def losses(preset: str) -> Callable[[Path, Record, Sizes], None]:
    """Of every ZeRO stage in bf16, plain, compiled and recomputed, and in fp32."""

    def run_part(work: Path, record: Record, sizes: Sizes) -> None:
        distributed.setup()
        plain = _losses(work, record, sizes, preset, "fp32.json", "eager")
        _compare(work, record, preset, "fp32", plain, FP32_BOUND)
        for stage in STAGES:
            plain = _losses(work, record, sizes, preset, f"zero{stage}", "eager")
            _compare(work, record, preset, f"ZeRO-{stage} bf16", plain, BF16_BOUND)
            for mode in list(MODES)[1:]:
                if stage == 3 and "train.compile=true" in MODES[mode] and torch.cuda.is_available():
                    continue  # refused: coordtok.train.engine.check_compiled
                found = _losses(work, record, sizes, preset, f"zero{stage}", mode)
                if plain and found:
                    name = f"{preset} ZeRO-{stage} {mode} against eager"
                    record.near(name, found, plain, KERNEL_BOUND)

    return run_part


def _compare(
    work: Path, record: Record, preset: str, name: str, found: list[float], bound: float
) -> None:
    """With the CPU, which is waited for a while."""
    if not found:
        return
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for line in read_lines(work / "reference.jsonl"):
            if line.get("figures") == "reference" and line["preset"] == preset:
                record.near(f"{preset} {name} against the CPU", found, line["losses"], bound)
                return
            if line.get("check") == "reference runs":
                deadline = 0
        time.sleep(0.5)
    record.check(f"{preset} {name} against the CPU", False, error="no reference", found=found)


def _losses(
    work: Path, record: Record, sizes: Sizes, preset: str, sharding: str, mode: str
) -> list[float]:
    """Empty, and said, where it fails: the others still run."""
    name = f"{preset} {sharding} {mode}"
    began = time.perf_counter()
    torch.compiler.reset()
    path = str(work / sharding) if sharding.endswith(".json") else sharding
    try:
        with _trainer(sizes.few_layers(preset, work, *MODES[mode]), path) as trainer:
            found = _steps(trainer, record, name, with_average=mode == "eager")
    except Exception as error:
        traceback.print_exc()
        record.check(f"{name} runs", False, error=f"{type(error).__name__}: {error}"[:600])
        return []
    record.figures("losses", name=name, losses=found, seconds=time.perf_counter() - began)
    return found


def _steps(trainer: Trainer, record: Record, name: str, with_average: bool) -> list[float]:
    masters = Masters(trainer.engine)
    expected = {key: own.values.double() for key, own in masters.slices().items()}
    found = []
    for _, result in trainer.steps():
        found.append(result.losses["loss"])
        for key, own in masters.slices().items() if with_average else ():
            decay = trainer.run.ema.decay
            expected[key] = decay * expected[key] + (1 - decay) * own.values.double()
    if with_average:
        assert trainer.ema is not None
        pairs = [(own.values.double(), expected[key]) for key, own in trainer.ema.slices.items()]
        most = max(float((one - other).abs().max()) for one, other in pairs)
        record.check(f"{name} average of weights", most <= EMA_BOUND, most=most, bound=EMA_BOUND)
    return found


@contextmanager
def _trainer(run: RunConfig, sharding_path: str) -> Iterator[Trainer]:
    sharding = load_sharding(sharding_path, run, 1)
    with TemporaryDirectory() as folder:
        run = reading(run, run.data.shards[0].path)
        with trainer_to_measure(run, sharding, Path(folder), STEPS) as trainer:
            yield trainer
            trainer.engine.destroy()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def sampling(work: Path, record: Record, sizes: Sizes) -> None:
    """Samples, and a decoded clip, in fp32 on the device against those on the CPU."""
    device = distributed.device()
    run = sizes.few_layers("dit_l", work)
    how = Generation(SamplerConfig(name="heun", steps=4), batch=2)
    model = TriplaneDiT.from_pretrained(work / "start_dit_l").eval()
    made = {}
    for place in (torch.device("cpu"), device):
        with torch.no_grad():
            model = model.to(place)
            planes = generate_chunk(model, model.config, place, range(2), how)
        made[place.type] = torch.cat([plane.flatten().cpu() for plane in planes])
    _same(record, "sampling", made["cpu"], made[device.type])
    run = sizes.few_layers("tokenizer_l", work)
    tokenizer = CoordTok.from_pretrained(work / "start_tokenizer_l").eval()
    video = torch.randint(0, 256, (1, *run.model.video_size, 3), dtype=torch.uint8)
    frames = [0, run.model.frames // 2]
    decoded = {}
    for place in (torch.device("cpu"), device):
        tokenizer = tokenizer.to(place)
        with torch.no_grad():
            planes = tokenizer.encode(video)
            decoded[place.type] = tokenizer.decode(planes, frames).cpu()
    _same(record, "encoding and decoding", decoded["cpu"], decoded[device.type])
    record.figures("sampler", **asdict(how.sampler))


def _same(record: Record, name: str, wanted: torch.Tensor, found: torch.Tensor) -> None:
    most = float((found - wanted).norm() / wanted.norm())
    record.check(f"{name} against the CPU", most <= SAMPLE_BOUND, most=most, bound=SAMPLE_BOUND)
