"""Milliseconds of the forward and backward pass of a micro-batch under ZeRO-1, 2 and 3, beside
those of the bare module: what DeepSpeed's hooks and Python cost the host. The preset's layers are
all there, 32 wide, on one tiny clip, so that next to nothing is computed."""

import argparse
from typing import TYPE_CHECKING

from coordtok import cli
from coordtok.config.load import load_config
from coordtok.config.models import DiTModelConfig
from coordtok.errors import ConfigError

if TYPE_CHECKING:
    from coordtok.benchmarks.table import Report


def add_options(parser: cli.Parser) -> None:
    parser.add_argument(
        "--config",
        default="tokenizer_l",
        metavar="PRESET_OR_YAML",
        help="a tokenizer, whose layers are counted (default: %(default)s)",
    )
    parser.add_argument(
        "--turns",
        type=cli.positive,
        default=20,
        metavar="N",
        help="micro-batches measured of each (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> "Report":
    if isinstance(load_config(args.config).model, DiTModelConfig):
        raise ConfigError(f"{args.config} is a generator; name a tokenizer's config")
    from coordtok.benchmarks.bench_engine import NARROW, measure_engine
    from coordtok.train.quiet import quieten

    quieten()
    return measure_engine(load_config(args.config, NARROW), args.turns, args.work_folder)
