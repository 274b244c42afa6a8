"""What training a generator from latents saves: real training steps on latents that are read from
shards, and the same steps on clips that are read from h264 shards and encoded by the tokenizer on
the way, in turns. Milliseconds a step of both and their ratio; below them what getting the batch
took, and what the generator took itself. The shards are made on the spot in a temporary folder. The
tokenizer computes in the precision that the generator trains in; its weights are random, which its
speed does not depend on. Both sides read with data.workers processes; data.workers=0 reads nothing
ahead, so that all of the reading shows."""

import argparse
from typing import TYPE_CHECKING

from coordtok import cli
from coordtok.config.load import load_config

if TYPE_CHECKING:
    from coordtok.benchmarks.table import Report


def add_options(parser: cli.Parser) -> None:
    cli.add_run(parser, "dit_tiny", "the generator, of a dit_* preset")
    parser.add_argument(
        "--tokenizer-config",
        metavar="PRESET_OR_YAML",
        default="tokenizer_tiny",
        help="its tokenizer, of the same size class (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=cli.positive,
        default=20,
        metavar="N",
        help="steps measured of each side (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> "Report":
    config = load_config(args.config, args.overrides)
    tokenizer = load_config(args.tokenizer_config)
    from coordtok.train.quiet import quieten

    quieten()
    from coordtok.benchmarks.bench_latents import measure_latents

    return measure_latents(config, tokenizer, args.deepspeed, args.steps, args.work_folder)
