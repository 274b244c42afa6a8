#!/usr/bin/env python
"""Measure the project on this machine:

    python scripts/benchmark.py all --output benchmarks
    python scripts/benchmark.py loader
    python scripts/benchmark.py memory --shards shards/quickstart/train
    deepspeed scripts/benchmark.py train --deepspeed ds_configs/zero3.json --config tokenizer_s
    python scripts/benchmark.py engine --config tokenizer_l
    torchrun --nproc-per-node 2 scripts/benchmark.py checkpoint --deepspeed zero3_fp32 \\
        --config tokenizer_s
    python scripts/benchmark.py decode --model exports/quickstart --shards shards/quickstart/val
    python scripts/benchmark.py sample --model exports/dit_quickstart
    deepspeed scripts/benchmark.py latents --deepspeed ds_configs/zero3.json --config dit_s \\
        --tokenizer-config tokenizer_s

`benchmark.py COMMAND --help` says what a command measures and its options. Figures are medians
of one run. With --json PATH they are also written to a file, with a description of the machine.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from coordtok import cli
from coordtok.benchmarks import (
    command_all,
    command_checkpoint,
    command_decode,
    command_engine,
    command_latents,
    command_loader,
    command_memory,
    command_sample,
    command_train,
)
from coordtok.errors import ConfigError

COMMANDS = {
    "all": command_all,
    "loader": command_loader,
    "memory": command_memory,
    "train": command_train,
    "engine": command_engine,
    "checkpoint": command_checkpoint,
    "decode": command_decode,
    "sample": command_sample,
    "latents": command_latents,
}


def parse_args(arguments: Sequence[str] | None = None) -> tuple[str, argparse.Namespace]:
    """The command and its options. Two parsers, because the launcher puts an option of its own
    first, and subparsers cannot take overrides between options."""
    parser = cli.Parser(__doc__)
    cli.add_launcher(parser)
    parser.add_argument("command", choices=COMMANDS, help="what to measure")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="see COMMAND --help")
    first = parser.parse_args(arguments)
    command = COMMANDS[first.command]
    second = cli.Parser(command.__doc__, prog=f"{parser.prog} {first.command}")
    command.add_options(second)
    second.add_argument("--json", metavar="PATH", help="write the figures to this file too")
    second.add_argument(
        "--work-folder",
        metavar="DIR",
        help="where temporary files go (default: the system's folder for them; several nodes need "
        "one that they share)",
    )
    return first.command, second.parse_intermixed_args(first.options)


@cli.exit_on_user_error
def main() -> None:
    name, args = parse_args()
    from coordtok import distributed
    from coordtok.benchmarks.table import check_json_path, write_json

    check_json_path(args.json)
    if args.work_folder is not None and not os.path.isdir(args.work_folder):
        raise ConfigError(f"--work-folder {args.work_folder} is no folder; create it first")
    report = COMMANDS[name].run(args)
    if distributed.is_main():
        print(report.text)
        if args.json is not None:
            write_json(args.json, name, report)


if __name__ == "__main__":
    sys.exit(main())
