"""Resident memory, of this process and of its loader processes, while many clips are read from
shards as training reads them: at twenty points of the way, and how much more it is at the end than
it was after the first tenth. 50,000 clips take some minutes."""

import argparse
from typing import TYPE_CHECKING

from coordtok import cli

if TYPE_CHECKING:
    from coordtok.benchmarks.table import Report


def add_options(parser: cli.Parser) -> None:
    cli.add_shards(parser, "clips to read")
    parser.add_argument(
        "--clips", type=cli.positive, default=50_000, metavar="N", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--frames",
        type=cli.positive,
        default=64,
        metavar="T",
        help="of a clip (default: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)"
    )
    cli.add_seed(parser, "of the order")


def run(args: argparse.Namespace) -> "Report":
    from coordtok.benchmarks.bench_memory import measure_memory

    return measure_memory(args.shards, args.clips, args.frames, args.workers, args.seed)
