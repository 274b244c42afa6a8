"""What a process must do before it ends, whichever way its command ends it."""

import atexit
from collections.abc import Callable

_endings: list[Callable[[], None]] = []


def before_exit(end: Callable[[], None]) -> Callable[[], None]:
    """Call `end` when the interpreter ends, and before `coordtok.cli.leave` ends the process
    without that. It may be called twice. A decorator."""
    _endings.append(end)
    return atexit.register(end)


def run_endings() -> None:
    """Do now what was registered, the last first."""
    for end in reversed(_endings):
        end()
