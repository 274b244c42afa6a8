"""Command-line options that several scripts share."""

import argparse
from typing import Any, get_args

import torch

from coordtok.geometry.groups import DEFAULT_GROUPING, Grouping
from coordtok.inference.reconstruction import Decoding
from coordtok.pretrained.write import DTYPES


def add_decoding(parser: Any, batch: str, default: int = 1) -> None:
    """--grouping, --points-per-pass and --batch; `batch` says what is taken at once."""
    parser.add_argument(
        "--grouping",
        choices=get_args(Grouping),
        default=DEFAULT_GROUPING,
        help="which patches are decoded together: whole frames spread over a clip, neighbouring "
        "frames, or random patches as in training, which makes every frame as dear as all; results "
        "depend on it (default: %(default)s; docs/grouping.md)",
    )
    parser.add_argument(
        "--points-per-pass",
        type=int,
        metavar="N",
        help="how many patches are decoded together, about; results depend on it (default: as the "
        "model was trained)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        default=default,
        help=f"{batch} at once (default: %(default)s)",
    )


def decoding_of(args: argparse.Namespace) -> Decoding:
    return Decoding(args.points_per_pass, args.grouping, args.batch)


def add_compute(parser: Any) -> None:
    """--device and --dtype."""
    parser.add_argument("--device", help="to compute on (default: each rank's GPU, or the CPU)")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of the weights (default: as they are stored)"
    )


def dtype_of(args: argparse.Namespace) -> torch.dtype | None:
    return None if args.dtype is None else DTYPES[args.dtype]
