#!/usr/bin/env python
"""Turn a run's checkpoint into an export: config.json and model.safetensors, whatever the ZeRO
stage and the number of ranks it was trained with.

    python scripts/export.py runs/quickstart exports/quickstart
    python scripts/export.py runs/ucf101/checkpoints/step_00100000 exports/ucf101 --weights raw

CoordTok.from_pretrained loads it without deepspeed, and train.init_from starts a run from it.
"""

import argparse
import sys

from coordtok import cli


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "source",
        metavar="RUN_OR_CHECKPOINT",
        help="a run folder, of which the newest checkpoint is taken, or one of its step_* folders",
    )
    cli.add_export_target(parser)
    parser.add_argument(
        "--weights",
        choices=["raw", "ema"],
        help="as trained, or their moving average (default: the average if the run kept one)",
    )
    return parser.parse_args()


@cli.exit_on_user_error
def main() -> None:
    args = parse_args()
    from coordtok.train.quiet import quieten

    quieten()
    from coordtok.pretrained.write import DTYPES
    from coordtok.train.export import export_checkpoint

    checkpoint, card = export_checkpoint(
        args.source,
        args.out_dir,
        args.weights,
        DTYPES[args.store_dtype],
        overwrite=args.overwrite,
        progress=True,
    )
    kind = {"ema": "moving average of the weights", "raw": "weights as trained"}
    print(f"{args.out_dir}: {kind[card.origin.weights]}, {args.store_dtype}, from {checkpoint}")


if __name__ == "__main__":
    sys.exit(main())
