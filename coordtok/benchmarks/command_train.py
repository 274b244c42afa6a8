"""Real training steps of a preset: clips per second as a run trains, operations a second by formula
(of a known GPU also as a share of its data sheet's rate), peak memory; then the seconds of a step
spent on data, forward, backward and optimiser, and how much of it is communication between ranks.
The clips (latents, for a generator) are noise in a temporary folder unless --own-shards (or
data.shards=DIR) asks for the config's.
Phases come from as many steps again, on a GPU by events, which let the host run ahead.
Communication is part of the phases and comes from a trace of some more steps: the time in which at
least one collective was under way, waiting for other ranks included."""

import argparse
from typing import TYPE_CHECKING

from coordtok import cli
from coordtok.config.load import load_config

if TYPE_CHECKING:
    from coordtok.benchmarks.table import Report


def add_options(parser: cli.Parser) -> None:
    cli.add_run(parser, "quickstart", "what to train")
    parser.add_argument(
        "--steps",
        type=cli.positive,
        default=20,
        metavar="N",
        help="steps measured (default: %(default)s)",
    )
    parser.add_argument(
        "--own-shards", action="store_true", help="read the shards that the config names"
    )


def run(args: argparse.Namespace) -> "Report":
    config = load_config(args.config, args.overrides)
    from coordtok.train.quiet import quieten

    quieten()
    from coordtok.benchmarks.bench_train import measure_training

    own = args.own_shards or any(each.startswith("data.shards=") for each in args.overrides)
    return measure_training(config, args.deepspeed, args.steps, own, args.work_folder)
