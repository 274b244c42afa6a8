#!/usr/bin/env python
"""Train a model. Under the deepspeed launcher, torchrun, or plain python (one rank):

    deepspeed scripts/train.py --deepspeed ds_configs/zero3.json
    deepspeed --num_gpus 8 scripts/train.py --deepspeed ds_configs/zero3.json \\
        --config tokenizer_l data.shards=shards/ucf101/train run_dir=runs/ucf101

The YAML says what to train, the DeepSpeed JSON how to shard it. The run folder's newest checkpoint
is continued unless --resume says otherwise.

Exit codes: 0 the run is finished; 2 an error that you can put right; 75 (EX_TEMPFAIL) stopped by
SIGTERM or SIGUSR1 after saving: the same command goes on; 130 interrupted; others: a failure. The
deepspeed command returns them too, torchrun returns 1 for every one but 0.
"""

import argparse
import os

from coordtok import cli
from coordtok.config.load import load_config, to_yaml

STOPPED = os.EX_TEMPFAIL
"""Exit code of a run that a signal stopped: start it again."""


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
    parser.add_argument(
        "--check",
        action="store_true",
        help="make everything, train one step in memory and look at held-out clips, then say what "
        "was found; writes nothing",
    )
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the whole config as YAML, with presets, overrides and defaults, and stop",
    )
    cli.add_launcher(parser)
    return parser.parse_intermixed_args()


@cli.exit_on_user_error
def main() -> int:
    args = parse_args()
    run = load_config(args.config, args.overrides)
    if args.print_config:
        if cli.is_first_rank():
            print(to_yaml(run), end="")
        return 0
    from coordtok import distributed
    from coordtok.train.quiet import quieten
    from data_prep.quickstart import build_if_missing

    quieten()
    from coordtok.train.run import train

    distributed.setup()
    distributed.run_on_main(lambda: build_if_missing(run))
    finished = train(run, args.deepspeed, args.resume, args.allow_grown_data, args.check)
    return 0 if finished else STOPPED


if __name__ == "__main__":
    cli.leave(main())
