"""How a run is asked to stop, and how it notices that its launcher is gone.

SIGTERM and SIGUSR1 set a flag that the ranks compare at every step (`StopRequest`). Signals sent to
the `deepspeed` command never reach the ranks, which would live on and write into the run folder
beside the next run: `watch_launcher` ends them when their launcher is gone, on its own machine.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType

import psutil

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
POLL_SECONDS = 0.5
LAUNCHERS = (
    "deepspeed",
    "deepspeed.launcher.runner",
    "deepspeed.launcher.launch",
    "torchrun",
    "torch.distributed.run",
)


class StopRequest:
    """Set by a signal to this process. SIGINT is left alone: it interrupts at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def install(self) -> "StopRequest":
        for number in STOP_SIGNALS:
            signal.signal(number, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    @property
    def is_set(self) -> bool:
        return self.signal is not None


def watch_launcher() -> None:
    """End this process within a second of the launcher's end, however the launcher ended.

    Watched are the parent and the parent's parent, as far as they are launchers (`deepspeed` starts
    one process per node, which starts the ranks). A rank started by hand has none.
    """
    launchers = _launchers()
    if launchers:
        threading.Thread(target=_exit_when_gone, args=(launchers,), daemon=True).start()


def _launchers() -> list[psutil.Process]:
    """The launchers above this process, nearest first."""
    found: list[psutil.Process] = []
    with suppress(psutil.Error):  # hidden, or ended meanwhile
        for process in psutil.Process().parents()[:2]:
            if not is_launcher(process.cmdline()):
                break
            found.append(process)
    return found


def is_launcher(command: list[str]) -> bool:
    """Whether a process with these arguments starts and tends ranks. A shell that ran the launcher
    does not: it may end long before a run that was put in the background."""
    program = os.path.basename(command[0]) if command else ""
    if program.startswith("python"):
        return any(os.path.basename(argument) in LAUNCHERS for argument in command[1:5])
    return program in LAUNCHERS


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _exit_when_gone(launchers: list[psutil.Process]) -> None:
    while all(map(_is_alive, launchers)):
        time.sleep(POLL_SECONDS)
    os._exit(1)
