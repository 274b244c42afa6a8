#!/usr/bin/env python
"""Turn a checkpoint of the former format, DeepSpeed's own files, into one that training reads.

    python scripts/convert_checkpoint.py runs/ucf runs/converted
    deepspeed scripts/train.py --deepspeed ds_configs/zero3.json --resume runs/converted \\
        run_dir=runs/ucf_goes_on

The old files are pickles: loading one can run any code that its writer chose. Convert only what you
trained or trust. What is there stays as it is.
"""

import argparse
import sys
from pathlib import Path

from coordtok import cli


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "source",
        metavar="RUN_OR_CHECKPOINT",
        type=Path,
        help="a run folder, of which the newest checkpoint is taken, or one of its step_* folders",
    )
    parser.add_argument("target", metavar="NEW_FOLDER", type=Path, help="the converted checkpoint")
    return parser.parse_args()


@cli.exit_on_user_error
def main() -> None:
    args = parse_args()
    print(
        f"loading the pickles of {args.source}, which can run code of whoever wrote them",
        file=sys.stderr,
    )
    from coordtok.train.quiet import quieten

    quieten()
    from coordtok.train.conversion import convert_checkpoint

    checkpoint = convert_checkpoint(args.source, args.target, progress=True)
    print(f"{args.target}: from {checkpoint}; continue it by --resume, in a new run_dir")


if __name__ == "__main__":
    sys.exit(main())
