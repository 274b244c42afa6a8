#!/usr/bin/env python
"""Measure how well a tokenizer reconstructs a dataset:

    python scripts/evaluate.py --model models/ucf --shards shards/ucf101/test --output out/eval
    deepspeed --num_gpus 8 scripts/evaluate.py --model models/ucf --shards shards/ucf101/train \\
        --clips 10000 --perceptual lpips --output out/paper

Every clip is scored once, on any number of ranks (deepspeed, torchrun, or plain python), with the
same result. The output folder gets report.json, clips.csv (the list of clips, which --clip-list
scores again) and per_clip.csv.
"""

import argparse
from pathlib import Path
from typing import get_args

from coordtok import distributed
from coordtok.config.errors import exit_on_user_error
from coordtok.evaluation.reconstruction import Decoding
from coordtok.evaluation.tokenizer import Request, Sampling, evaluate_tokenizer
from coordtok.geometry.groups import Grouping
from coordtok.pretrained.write import DTYPES


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        metavar="DIR",
        type=Path,
        required=True,
        help="an export, as scripts/export.py makes it",
    )
    parser.add_argument(
        "--shards", metavar="DIR", required=True, help="video shards: a folder or a URL"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="folder to make; must be new"
    )
    add_clips(parser)
    add_metrics(parser)
    add_decoding(parser)
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # from the launcher
    return parser.parse_args()


def add_clips(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which clips (default: one random window of every sample)")
    group.add_argument(
        "--clips",
        type=int,
        metavar="N",
        help="N different random windows of exactly the model's frames, spread evenly over the "
        "samples that are long enough: the paper's protocol with 10000",
    )
    group.add_argument("--seed", type=int, default=0, help="of the windows (default: 0)")
    group.add_argument(
        "--clip-list", metavar="CSV", type=Path, help="the clips.csv of an earlier evaluation"
    )
    group.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes of each rank that read clips (default: %(default)s)",
    )


def add_metrics(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is measured (PSNR always)")
    group.add_argument("--no-ssim", action="store_true", help="leave SSIM out")
    group.add_argument(
        "--perceptual",
        choices=("none", "lpips", "hed"),
        default="none",
        help="LPIPS-VGG, or VGG(HED), its stand-in whose figures compare only with one another "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--perceptual-weights",
        metavar="PATH",
        help="the weights' file or folder (default: the cache folder)",
    )


def add_decoding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how clips are decoded")
    default = Decoding()
    group.add_argument(
        "--points-per-pass",
        type=int,
        metavar="N",
        help="patches decoded together, in whole frames; results depend on it (default: as the "
        "model was trained)",
    )
    group.add_argument(
        "--grouping",
        choices=get_args(Grouping),
        default=default.grouping,
        help="which frames are decoded together; results depend on it (default: %(default)s)",
    )
    group.add_argument(
        "--batch",
        type=int,
        metavar="N",
        default=default.batch,
        help="clips at once (default: %(default)s)",
    )
    group.add_argument(
        "--device", help="to compute on (default: each rank's GPU where there is one, else cpu)"
    )
    group.add_argument(
        "--dtype", choices=DTYPES, help="of the weights (default: as they are stored)"
    )


def request(args: argparse.Namespace) -> Request:
    return Request(
        model=args.model,
        shards=args.shards,
        output=args.output,
        sampling=Sampling(args.clips, args.seed, args.clip_list),
        decoding=Decoding(args.points_per_pass, args.grouping, args.batch),
        device=args.device or str(distributed.device()),
        dtype=None if args.dtype is None else DTYPES[args.dtype],
        workers=args.workers,
        ssim=not args.no_ssim,
        perceptual=None if args.perceptual == "none" else args.perceptual,
        perceptual_weights=args.perceptual_weights,
        progress=True,
    )


@exit_on_user_error
def main() -> None:
    args = parse_args()
    distributed.setup()
    report = evaluate_tokenizer(request(args))
    if distributed.is_main():
        print(f"{args.output}: PSNR {report['metrics']['psnr']:.2f} dB")


if __name__ == "__main__":
    distributed.leave(main())
