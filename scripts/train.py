#!/usr/bin/env python
"""Train a model. Under the deepspeed launcher, torchrun, or plain python (one rank):

    deepspeed scripts/train.py --deepspeed ds_configs/zero3.json
    deepspeed --num_gpus 8 scripts/train.py --deepspeed ds_configs/zero3.json \\
        --config tokenizer_l data.shards=shards/ucf101/train run_dir=runs/ucf

The YAML says what to train, the DeepSpeed JSON how to shard it. The run folder's newest checkpoint
is continued unless --resume says otherwise.
"""

import argparse

from coordtok import cli
from coordtok.config.load import load_config


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    cli.add_run(parser, "quickstart", "what to train")
    parser.add_argument(
        "--resume",
        metavar="auto|none|PATH",
        default="auto",
        help="auto continues the newest complete checkpoint of run_dir, if there is one; none "
        "refuses a used run_dir; PATH is a checkpoint or another run (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-grown-data",
        action="store_true",
        help="continue although the shards are no longer those of the checkpoint; every lane "
        "then begins its next epoch",
    )
    cli.add_launcher(parser)
    return parser.parse_intermixed_args()


@cli.exit_on_user_error
def main() -> None:
    args = parse_args()
    run = load_config(args.config, args.overrides)
    from coordtok import distributed
    from coordtok.train.quiet import quieten
    from data_prep.quickstart import build_if_missing

    quieten()
    from coordtok.train.run import train

    distributed.setup()
    distributed.run_on_main(lambda: build_if_missing(run))
    train(run, args.deepspeed, args.resume, args.allow_grown_data)


if __name__ == "__main__":
    cli.leave(main())
