#!/usr/bin/env python
"""Turn a file of the authors' release into an export that CoordTok.from_pretrained, or for their
generator TriplaneDiT.from_pretrained, loads:

    python scripts/import_official.py CoordTok_UCF101_1M_50K.pth exports/coordtok_l
    python scripts/import_official.py CoordTok_SiT_L_2_UCF101_600K.pt exports/sit_l \\
        --log log.txt --tokenizer exports/coordtok_l

Nothing of the file is executed. Clips of full length give what the authors' code gives; shorter
ones do with --legacy-padding, and without it their padding is masked, as in our own training. Of a
generator the averaged weights are taken.
"""

import argparse
import sys
from pathlib import Path

from coordtok import cli


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", type=Path, help="the authors' .pth or .pt file"
    )
    cli.add_export_target(parser)
    parser.add_argument(
        "--heads",
        type=int,
        metavar="N",
        help="attention heads, which the file does not say (default: width / 64, as in all "
        "released sizes)",
    )
    _add_tokenizer_options(parser.add_argument_group("of a tokenizer"))
    _add_generator_options(parser.add_argument_group("of a generator"))
    return parser.parse_args()


def _add_tokenizer_options(group: cli.Options) -> None:
    group.add_argument(
        "--legacy-padding",
        action="store_true",
        help="encode clips shorter than the model's as the release does: padding of -3, not "
        "masked but attended to more; for comparisons with its results on short clips",
    )
    group.add_argument(
        "--points-per-pass",
        type=int,
        metavar="N",
        help="patches that decode takes together by default; the release trained with "
        "1024, its LPIPS fine-tune with 4096 (default: 1024)",
    )


def _add_generator_options(group: cli.Options) -> None:
    group.add_argument(
        "--log",
        type=Path,
        metavar="LOG",
        help="log.txt of its training; the mean and std of its latents are nowhere else (needed)",
    )
    group.add_argument(
        "--tokenizer",
        type=Path,
        metavar="EXPORT",
        help="the imported tokenizer whose latents it makes; what samples are decoded with",
    )


@cli.exit_on_user_error
def main() -> None:
    args = parse_args()
    from coordtok.pretrained.official.convert import ImportOptions, import_official, summary
    from coordtok.pretrained.write import DTYPES

    options = ImportOptions(
        heads=args.heads,
        points_per_pass=args.points_per_pass,
        legacy_padding=args.legacy_padding,
        log=args.log,
        tokenizer=args.tokenizer,
    )
    card = import_official(
        args.checkpoint,
        args.out_dir,
        options,
        dtype=DTYPES[args.store_dtype],
        overwrite=args.overwrite,
        progress=True,
    )
    print(f"{args.out_dir}: {summary(card)}")


if __name__ == "__main__":
    sys.exit(main())
