"""Checkpoints of a preset: how long training stands still for a save that is written while it goes
on and for one that it waits for, how long each takes in all, how long loading takes, what a rank
opens and reads for its share, and the memory of its process. Weights and the states of AdamW are
random: nothing is trained. With --folder the checkpoint stays there; --load-only then loads it, on
another number of ranks too."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from coordtok import cli
from coordtok.config.load import load_config

if TYPE_CHECKING:
    from coordtok.benchmarks.table import Report


def add_options(parser: cli.Parser) -> None:
    cli.add_run(parser, "quickstart", "whose checkpoints")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="keep the checkpoints here (default: nowhere)"
    )
    parser.add_argument(
        "--load-only", action="store_true", help="load what an earlier call left in --folder"
    )


def run(args: argparse.Namespace) -> "Report":
    config = load_config(args.config, args.overrides)
    from coordtok.train.quiet import quieten

    quieten()
    from coordtok.benchmarks.bench_checkpoint import measure_checkpoints

    return measure_checkpoints(
        config, args.deepspeed, args.folder, args.load_only, args.work_folder
    )
