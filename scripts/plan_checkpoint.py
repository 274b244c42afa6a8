#!/usr/bin/env python
"""What the checkpoints of a run will cost: files, bytes and opens of every rank that saves one, and
of every rank, of as many as you like, that loads it. No weights are made and no file is touched.

    python scripts/plan_checkpoint.py --config dit_7b --ranks 1024 --load-ranks 512

Saving and loading decide what to write and read by the same functions.
"""

import argparse
import sys

from coordtok import cli
from coordtok.config.load import load_config, preset_names


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--config",
        metavar="PRESET_OR_YAML",
        required=True,
        help=f"the run: a YAML file or one of {', '.join(preset_names())}",
    )
    parser.add_argument("--ranks", type=cli.positive, required=True, help="ranks that save")
    parser.add_argument(
        "--stage", type=int, choices=(1, 2, 3), default=3,
        help="their ZeRO stage (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--load-ranks",
        type=cli.positive,
        metavar="RANKS",
        help="ranks that load (default: as many)",
    )
    parser.add_argument(
        "--load-stage", type=int, choices=(1, 2, 3), help="their ZeRO stage (default: the same)"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="changes to the config"
    )
    return parser.parse_intermixed_args()


@cli.exit_on_user_error
def main() -> None:
    args = parse_args()
    run = load_config(args.config, args.overrides)
    from coordtok.train.quiet import quieten

    quieten()
    from coordtok.train.checkpoint_costs import Ranks, as_text, contents_of

    saving = Ranks(args.ranks, args.stage)
    loading = Ranks(args.load_ranks or args.ranks, args.load_stage or args.stage)
    print(as_text(contents_of(run), saving, loading))


if __name__ == "__main__":
    sys.exit(main())
