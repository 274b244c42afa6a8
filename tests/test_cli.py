"""Command lines: what they refuse, how they end, and that --help is complete and quick."""

import argparse
import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from coordtok import cli, errors
from coordtok.errors import ConfigError, DataError
from coordtok.evaluation.features import PixelRange, Preparation
from coordtok.geometry.groups import DEFAULT_GROUPING, Grouping
from coordtok.inference.reconstruct import Fit
from coordtok.pretrained.write import DTYPES
from tests.support.commands import parser_of, run_here

ROOT = Path(__file__).parent.parent
BENCHMARKS = ("loader", "train", "checkpoint", "decode", "sample", "latents")
COMMANDS = [
    *([f"scripts/{path.name}"] for path in sorted((ROOT / "scripts").glob("[!_]*.py"))),
    *(["scripts/benchmark.py", name] for name in BENCHMARKS),
    ["data_prep.build_shards"],
    ["data_prep.verify_shards"],
]
HELP = """
import runpy, sys
_, command, *sys.argv[1:] = sys.argv
try:
    run = runpy.run_path if command.endswith(".py") else runpy.run_module
    run(command, run_name="__main__")
finally:
    heavy = {"torch", "deepspeed", "webdataset", "wandb"} & sys.modules.keys()
    assert not heavy, heavy
"""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_long_enough_and_loads_no_torch(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP, *command, "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(done.stdout) > 300
    assert not done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_installed_command_names_others_as_they_are_installed(monkeypatch, command) -> None:
    monkeypatch.setattr(errors, "in_clone", lambda: False)
    said = parser_of(command).format_help()
    assert not re.search(r"scripts/\w+\.py|-m data_prep\.\w+|ds_configs/\w+\.json", said), said


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_every_option(command: list[str]) -> None:
    actions = parser_of(command)._actions
    assert all(action.help for action in actions)
    hidden = {action.dest for action in actions if action.help == argparse.SUPPRESS}
    assert hidden <= {"local_rank"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_wrong_option_is_told_on_one_line_by_rank_0(
    command: list[str], rank: int, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv("RANK", str(rank))
    assert run_here(command, "--colour", "red") == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.count("\n") == 1 - rank
    assert rank or (said.err.startswith("error: ") and said.err.endswith(" (see --help)\n"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "many"], "--count many: it must be a whole number (see --help)"),
        (["--count", "9" * 5000], f"--count {'9' * 40}...: it must be a whole number (see --help)"),
        (["--count", str(1 << 63)], f"--count {1 << 63}: it must be at most {(1 << 63) - 1:,}"),
        (["--batch", "10000000000"], "--batch 10000000000: it must be at most 4,096 (see --help)"),
        (["--least", "0"], "--least 0: it must be at least 1 (see --help)"),
        (["--rate", "fast"], "--rate fast: it must be a number (see --help)"),
        (["--rate", "nan"], "--rate nan: it must be a number (see --help)"),
        (["--rate"], "--rate expected one argument (see --help)"),
        (["red"], "unrecognized arguments: red (see --help)"),
    ],
)
def test_a_usage_error_names_option_value_and_rule(arguments: list[str], message: str) -> None:
    parser = cli.Parser("what it does")
    group = parser.add_argument_group("numbers")
    group.add_argument("--count", type=int)
    group.add_argument("--least", type=cli.positive)
    group.add_argument("--batch", type=cli.up_to(4096))
    group.add_argument("--rate", type=float)
    with pytest.raises(ConfigError) as caught:
        parser.parse_args(arguments)
    assert str(caught.value).startswith(message)


def test_choices_and_defaults_are_those_of_the_library() -> None:
    assert get_args(Grouping) == cli.GROUPINGS
    assert tuple(DTYPES) == cli.DTYPES
    evaluate, reconstruct = (
        parser_of([f"scripts/{name}.py"]) for name in ("evaluate", "reconstruct")
    )
    choices = {
        action.dest: action.choices for action in [*evaluate._actions, *reconstruct._actions]
    }
    assert choices["fit"] == get_args(Fit)
    assert choices["features_range"] == get_args(PixelRange)
    assert evaluate.get_default("grouping") == DEFAULT_GROUPING
    features = [evaluate.get_default(f"features_{name}") for name in ("size", "range")]
    assert Preparation(*features) == Preparation()


def command(error: BaseException | None) -> Callable[[], int]:
    @cli.exit_on_user_error
    def main() -> None:
        if error is not None:
            raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (ConfigError("a\nb"), 2, "error: a b\n"),
        (DataError("x\x1b[2J"), 2, "error: x\\x1b[2J\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            2,
            "error: a/b: Permission denied; give yourself access, or choose another\n",
        ),
        (
            RuntimeError("unable to open <a>: Too many open files (24)"),
            2,
            "error: unable to open <a>: Too many open files (24); raise the limit on open files "
            "(ulimit -n)\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_command_ends_in_a_line_and_a_code(capsys, monkeypatch, error, code, said):
    monkeypatch.delenv("RANK", raising=False)
    assert command(error)() == code
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("all know"), 2, ""),
        (DataError("this rank alone"), 2, "error: this rank alone\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_all_ranks_find_only_the_first_tells(capsys, monkeypatch, error, code, said):
    monkeypatch.setenv("RANK", "3")
    assert command(error)() == code
    assert capsys.readouterr().err == said


PRINTS_A_NAME = """
import os, sys
from coordtok import cli, errors

@cli.exit_on_user_error
def main():
    print(os.fsdecode(b"\\xff"), flush=len(sys.argv) > 1)

sys.exit(main())
"""


@pytest.mark.parametrize("flush", ["", "flush"])
@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ('"$@"', 0, ""),
        ('"$@" >&-', 0, ""),
        ('"$@" >&- 2>&- <&-', 0, ""),
        ('"$@" > /dev/full', 2, "error: standard output: No space left on device; make room"),
        ('mkdir gone; cd gone; rmdir ../gone; "$@"', 2, "error: the working folder cannot be used"),
    ],
)
def test_any_standard_output_and_folder(
    tmp_path: Path, shell: str, code: int, said: str, flush: str
) -> None:
    command = [sys.executable, "-c", PRINTS_A_NAME, *flush.split()]
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *command], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr[: len(said)]) == (code, said)
    assert done.stderr.count("\n") == bool(said)
    assert not done.stdout or done.stdout == "\\udcff\n"


def test_a_mistake_in_the_code_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        command(ZeroDivisionError("a bug"))()


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("encode", "--dtype", "--store-dtype"),
        ("encode", "--compute", "--compute-dtype"),
        ("export", "--dtype", "--store-dtype"),
        ("import_official", "--dtype", "--store-dtype"),
        *((name, "--dtype", "--compute-dtype") for name in ("decode", "evaluate", "sample")),
        ("reconstruct", "--dtype", "--compute-dtype"),
    ],
)
def test_former_names_of_options_still_work(command: str, old: str, new: str) -> None:
    """--dtype was of the stored planes, of the stored weights, or of those computed with."""
    options = parser_of([f"scripts/{command}.py"])._option_string_actions
    assert options[old] is options[new]
