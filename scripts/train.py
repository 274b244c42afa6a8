#!/usr/bin/env python
"""Train a model. Under the deepspeed launcher, torchrun, or plain python (one rank):

    deepspeed scripts/train.py --deepspeed ds_configs/zero3.json
    deepspeed --num_gpus 8 scripts/train.py --deepspeed ds_configs/zero3.json \\
        --config tokenizer_l data.shards=shards/ucf101/train run_dir=runs/ucf

The YAML says what to train, the DeepSpeed JSON how to shard it. The run folder's newest checkpoint
is continued unless --resume says otherwise.
"""

import argparse

from coordtok import distributed
from coordtok.config.load import load_config, preset_names
from coordtok.errors import exit_on_user_error
from coordtok.train.quiet import quieten
from data_prep.quickstart import build_if_missing


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--deepspeed",
        metavar="JSON",
        required=True,
        help="how to shard and at what precision: one of ds_configs/, or your own",
    )
    parser.add_argument(
        "--config",
        metavar="PRESET_OR_YAML",
        default="quickstart",
        help=f"what to train: a YAML file or one of {', '.join(preset_names())} "
        "(default: %(default)s)",
    )
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
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # from the launcher
    parser.add_argument(
        "overrides", nargs="*", metavar="key.path=value", help="changes to the config"
    )
    return parser.parse_intermixed_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    run = load_config(args.config, args.overrides)
    quieten()
    from coordtok.train.run import train

    distributed.setup()
    distributed.run_on_main(lambda: build_if_missing(run))
    train(run, args.deepspeed, args.resume, args.allow_grown_data)


if __name__ == "__main__":
    distributed.leave(main())
