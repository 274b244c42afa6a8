"""Mistakes a user can make.

A `UserError` carries one line: the value, the rule it breaks and the fix. Every command runs its
`main` through `coordtok.cli.exit_on_user_error`, which prints that line and exits 2, without a
traceback.
"""


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
    r"""`text` on one line, and safe to print: names out of files may hold newlines, which would
    break a log's lines, and codes that command a terminal, which become \x1b and the like."""
    line = " ".join(str(text).split())
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() else _escaped(each) for each in line)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
