"""Seconds and peak memory of a video that a generator makes, split into sampling its latents and
decoding them, as scripts/sample.py does both; writing the mp4 is not in it. Either two exports
(--model, --tokenizer), or what two configs train (--config, --tokenizer-config) with random
weights: speed and memory do not depend on them, except for how many steps dopri5 takes, which
needs exports. All steps of all videos are made and nothing is extrapolated: on a CPU, ask for few
--steps. Medians over batches, after a warm-up; a GPU is waited for."""

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from coordtok import cli
from coordtok.config.load import load_config
from coordtok.errors import ConfigError

if TYPE_CHECKING:
    from coordtok.benchmarks.table import Report


def add_options(parser: cli.Parser) -> None:
    generator = parser.add_mutually_exclusive_group(required=True)
    cli.add_model(generator, "a generator's export, as scripts/export.py makes it", required=False)
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
    cli.add_sampler(parser)
    parser.add_argument(
        "--num", type=int, metavar="N", default=3, help="videos made (default: %(default)s)"
    )
    parser.add_argument(
        "--batch",
        type=cli.up_to(cli.MOST_BATCH),
        metavar="N",
        default=1,
        help="videos of a forward pass of the generator (default: %(default)s)",
    )
    cli.add_compute(parser)


def run(args: argparse.Namespace) -> "Report":
    from coordtok import distributed
    from coordtok.benchmarks.bench_sample import measure_sampling, trained_pair, untrained_pair
    from coordtok.pretrained.write import DTYPES

    device, dtype = args.device or distributed.device(), DTYPES.get(args.compute_dtype)
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
