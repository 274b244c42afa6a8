"""Mistakes a user can make.

A `UserError` carries one line: the value, the rule it breaks and the fix. Every command runs its
`main` through `coordtok.cli.exit_on_user_error`, which prints that line and exits 2, without a
traceback.
"""

import errno
import os
import re
import sys
from functools import cache
from pathlib import Path


class UserError(Exception):
    """Something the user can put right; its message is one line naming value, rule and fix."""

    shared = False
    """Whether every rank of a run raises it, so that only rank 0 need print it."""

    def __str__(self) -> str:
        return as_typed(super().__str__())


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


def for_user(error: Exception) -> UserError | None:
    """`error` where it is for the user, or what the operating system refused where no reader or
    writer has words of its own for it: the file, the reason and a fix. None for a mistake in code.

    Libraries in C++ tell a refusal as a RuntimeError with the system's words in it.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError):
        return UserError(f"{os.strerror(errno.ENOMEM)}; {_FIXES[errno.ENOMEM]}")
    if isinstance(error, RuntimeError):
        found = (number for number in _FIXES if os.strerror(number) in str(error))
        number = next(found, None)
        return None if number is None else UserError(f"{error}; {_FIXES[number]}")
    if not isinstance(error, OSError):
        return None
    named = isinstance(error.filename, (str, bytes))
    subject = f"{os.fsdecode(error.filename)}: " if named else ""
    reason = error.strerror or str(error) or type(error).__name__
    return UserError(f"{subject}{reason}; {fix_for(error)}")


def fix_for(error: OSError) -> str:
    """What a user can do about what the operating system refused."""
    return _FIXES.get(error.errno or 0, _OTHER_FIX)


_ACCESS = "give yourself access, or choose another"
_ROOM = "make room, or choose another folder"
_LIMIT = "raise the limit on open files (ulimit -n)"
_FIXES = {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _ACCESS),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), _LIMIT),
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOMEM: "ask for less at a time, or take a machine with more memory",
}
_OTHER_FIX = "check that path, and the disk or the network behind it"


_INSTALLED = (
    (r"deepspeed((?: --\w+ \d+)?) scripts/(\w+)\.py", r"deepspeed\1 --module coordtok.commands.\2"),
    (r"ds_configs/(\w+)\.json", r"\1"),
)
_COMMAND = re.compile(r"(?:python )?scripts/(\w+)\.py|python -m data_prep\.(\w+_shards)")


def as_typed(text: str) -> str:
    """`text` with this repository's commands as they are typed where the package is installed:
    `coordtok-export` for `python scripts/export.py`. In a clone it stays as it is."""
    if in_clone():
        return text
    for pattern, replacement in _INSTALLED:
        text = re.sub(pattern, replacement, text)
    return _COMMAND.sub(lambda found: f"coordtok-{(found[1] or found[2]).replace('_', '-')}", text)


@cache
def in_clone() -> bool:
    """Whether this package lies in a clone, and no command of an installed one was typed."""
    started = os.path.basename(sys.argv[0] if sys.argv else "")
    clone = Path(__file__).parents[1]
    return not started.startswith("coordtok-") and (clone / "scripts/export.py").is_file()


def one_line(text: object) -> str:
    r"""`text` on one line, and safe to print: names out of files may hold newlines, which would
    break a log's lines, and codes that command a terminal, which become \x1b and the like."""
    line = " ".join(str(text).split())
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() else _escaped(each) for each in line)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
