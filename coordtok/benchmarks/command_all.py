"""Every benchmark that needs no files of yours, one after another, each in a process of its own:
reading clips, training steps of a tokenizer and of a generator, checkpoints, sampling, training
from latents. DIR gets performance.md, a page of the machine, each command and what it printed, and
the figures as NAME.json. Some ten minutes on two cores, on a GPU with larger models."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordtok import cli
from coordtok.errors import ConfigError, UserError
from coordtok.storage.files import write_whole

if TYPE_CHECKING:
    from coordtok.benchmarks.table import Report

_ON = {
    "cpu": {"tokenizer": "quickstart", "generator": "dit_tiny", "its tokenizer": "tokenizer_tiny"},
    "cuda": {"tokenizer": "tokenizer_l", "generator": "dit_l", "its tokenizer": "tokenizer_l"},
}
_LAUNCHER = {
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR",
    "MASTER_PORT", "OMP_NUM_THREADS",
}  # fmt: skip


def add_options(parser: cli.Parser) -> None:
    parser.add_argument(
        "--output", metavar="DIR", default="benchmarks", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=tuple(_calls("cpu")),
        metavar="NAME",
        help=f"of {', '.join(_calls('cpu'))} (default: all)",
    )


def run(args: argparse.Namespace) -> "Report":
    """
    Raises:
        UserError: one of them failed, and has said why; the others are there.
    """
    from coordtok import distributed
    from coordtok.benchmarks.table import Report, machine_facts

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("`all` starts processes of its own; start it without a launcher")
    output = Path(args.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be made: {error.strerror}") from None
    calls = _calls(distributed.device().type)
    sections = [_machine(machine_facts())]
    failed = []
    for name in args.only or calls:
        command = [sys.argv[0], *calls[name]]
        print(f"python {shlex.join(command)}", flush=True)
        options = ["--json", str(output / f"{name}.json")]
        if args.work_folder is not None:
            options += ["--work-folder", args.work_folder]
        done = subprocess.run(
            [sys.executable, *command, *options],
            env=_without_launcher(), stdout=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        said = done.stdout
        if done.returncode:
            failed.append(name)
            said += f"\nfailed with exit code {done.returncode}"
        sections.append(_section(name, command, said))
        write_whole(output / "performance.md", "\n".join(sections).encode())
    if failed:
        raise UserError(f"{', '.join(failed)} failed; {output}/performance.md has the others")
    return Report({"commands": args.only or list(calls)}, f"{output}/performance.md")


def _without_launcher() -> dict[str, str]:
    """For one rank: what a launcher says of this process's ranks is not for another one."""
    return {name: value for name, value in os.environ.items() if name not in _LAUNCHER}


def _calls(device: str) -> Mapping[str, Sequence[str]]:
    """The options of each, by its name on the page."""
    names = _ON[device]
    tokenizer, generator = names["tokenizer"], names["generator"]
    of_generator = ["--config", generator, "--tokenizer-config", names["its tokenizer"]]
    return {
        "loader": ["loader"],
        "train-tokenizer": ["train", "--deepspeed", "zero1", "--config", tokenizer],
        "train-generator": ["train", "--deepspeed", "zero1", "--config", generator],
        "checkpoint": ["checkpoint", "--deepspeed", "zero1", "--config", tokenizer],
        "sample": ["sample", *of_generator],
        "latents": ["latents", "--deepspeed", "zero1", *of_generator],
    }


def _machine(facts: Mapping[str, Any]) -> str:
    lines = (f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items())
    return "\n".join(["# Performance", "", "| | |", "|---|---|", *lines, ""])


def _section(name: str, command: Sequence[str], said: str) -> str:
    return "\n".join(
        [f"## {name}", "", "```bash", f"python {shlex.join(command)}", "```", "", "```text",
         *map(str.rstrip, said.strip().splitlines()), "```", ""]
    )  # fmt: skip
