#!/usr/bin/env python
"""Turn a file of the authors' release into an export that CoordTok.from_pretrained loads:

    python scripts/import_official.py CoordTok_UCF101_1M_50K.pth models/coordtok_l

Nothing of the file is executed. Clips of full length give what the authors' code gives; shorter
ones do with --legacy-padding, and without it their padding is masked, as in our own training.
"""

import argparse
import sys
from pathlib import Path

from coordtok.config.errors import exit_on_user_error
from coordtok.pretrained.card import TokenizerSettings
from coordtok.pretrained.official import import_official
from coordtok.pretrained.write import DTYPES


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="the authors' .pth file of a tokenizer"
    )
    parser.add_argument("out_dir", metavar="OUT_DIR", type=Path, help="folder to make")
    parser.add_argument(
        "--heads",
        type=int,
        metavar="N",
        help="attention heads, which the file does not tell (default: width / 64, as in all "
        "released sizes)",
    )
    parser.add_argument(
        "--legacy-padding",
        action="store_true",
        help="encode clips shorter than the model's as the release does: padding of -3, not "
        "masked but attended to more; for comparisons with its results on short clips",
    )
    parser.add_argument(
        "--points-per-pass",
        type=int,
        metavar="N",
        default=1024,
        help="patches that decode takes together unless told otherwise; the release trained with "
        "1024, its LPIPS fine-tune with 4096 (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="to store (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an export at OUT_DIR")
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    card = import_official(
        args.checkpoint,
        args.out_dir,
        TokenizerSettings(args.points_per_pass),
        heads=args.heads,
        legacy_padding=args.legacy_padding,
        dtype=DTYPES[args.dtype],
        overwrite=args.overwrite,
        progress=True,
    )
    model = card.model
    padding = "as in the release" if model.legacy_padding else "masked (not so in the release)"
    print(
        f"{args.out_dir}: tokenizer of {model.frames} frames of {model.height} x {model.width}, "
        f"width {model.dim}, {model.heads} heads, {model.video_layers} + {model.plane_layers} + "
        f"{model.decoder_layers} layers; padding of short clips {padding}"
    )


if __name__ == "__main__":
    sys.exit(main())
