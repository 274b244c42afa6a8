"""Mistakes a user can make, and how a command line reports them.

A `UserError` carries one line: the value, the rule it breaks and the fix. Every command runs its
`main` through `exit_on_user_error`, which prints that line and exits 2, without a traceback.
"""

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


class UserError(Exception):
    """Something the user can put right; its message is one line naming value, rule and fix."""

    shared = False
    """Whether every rank of a run raises it, so that only rank 0 need print it."""


class ConfigError(UserError):
    """A configuration that cannot be run: all ranks read the same one."""

    shared = True


class DataError(UserError):
    """Shards, an index or a video that cannot be read as asked."""


class CheckpointError(UserError):
    """A checkpoint or a run folder that cannot be continued or written: ranks find so together."""

    shared = True


class TrainingError(UserError):
    """A run that cannot go on, as all ranks found together."""

    shared = True


def one_line(text: object) -> str:
    r"""`text` on one line, and safe to print: strangers' names may hold newlines, which would break
    a log's lines, and codes that command a terminal, which become \x1b and the like."""
    line = " ".join(str(text).split())
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() else _escaped(each) for each in line)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def exit_on_user_error(main: Callable[P, int | None]) -> Callable[P, int]:
    """Wrap a command's `main`: its return value is the exit code; a `UserError` gives 2, Ctrl-C
    130 as in a shell."""

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs) or 0
        except UserError as error:
            if not error.shared or _is_first_rank():
                print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
            return 2
        except KeyboardInterrupt:
            if _is_first_rank():
                print("interrupted", file=sys.stderr, flush=True)
            return 130

    return wrapped


def _is_first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"
