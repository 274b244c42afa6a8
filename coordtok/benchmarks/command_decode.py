"""How patches are best grouped into decoder passes, on a trained model: PSNR, and the time that a
whole clip and one random frame of it take, for every grouping at several sizes of a pass
(docs/grouping.md). With --in-between instead the PSNR of times between frames, for which shards
with twice the model's frames in a sample are needed (docs/in_between_frames.md)."""

import argparse
from typing import TYPE_CHECKING

from coordtok import cli
from coordtok.config.training import MOST_POINTS

if TYPE_CHECKING:
    from coordtok.benchmarks.table import Report


def add_options(parser: cli.Parser) -> None:
    cli.add_model(parser)
    cli.add_shards(parser, "clips to decode")
    parser.add_argument(
        "--clips", type=int, default=8, metavar="N", help="of them (default: %(default)s)"
    )
    parser.add_argument(
        "--points-per-pass",
        type=cli.up_to(MOST_POINTS),
        nargs="+",
        metavar="N",
        help="sizes of a pass (default: 1, 4, 16 ... frames, as trained, and all)",
    )
    parser.add_argument(
        "--in-between", action="store_true", help="measure times between frames instead"
    )
    cli.add_device(parser)
    cli.add_seed(parser, "of the random windows")


def run(args: argparse.Namespace) -> "Report":
    from coordtok import distributed
    from coordtok.benchmarks.bench_decode import measure_decoding
    from coordtok.benchmarks.bench_in_between import measure_in_between
    from coordtok.models.tokenizer import CoordTok

    model = CoordTok.from_pretrained(args.model, args.device or distributed.device())
    if args.in_between:
        return measure_in_between(model, args.shards, args.clips, args.seed)
    return measure_decoding(model, args.shards, args.clips, args.points_per_pass, args.seed)
