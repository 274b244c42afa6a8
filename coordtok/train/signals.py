"""How a run is asked to stop, and how it notices that nobody is left to ask.

SIGTERM and SIGUSR1 set a flag that the ranks compare at every step (`StopRequest`). Signals sent to
the `deepspeed` command never reach the ranks, which would live on and write into the run folder
beside the next run: `watch_launcher` ends them when their launcher is gone, on its own machine.
"""

import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
POLL_SECONDS = 0.5
LAUNCHERS = ("deepspeed", "deepspeed.launcher.launch", "torchrun", "torch.distributed.run")


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
    ancestors = _launcher_pids()
    if ancestors:
        threading.Thread(target=_exit_when_gone, args=(ancestors,), daemon=True).start()


def _launcher_pids() -> list[tuple[int, str]]:
    """(pid, start time) of the launchers above this process; the start time tells a reused pid."""
    found = []
    pid = os.getppid()
    for _ in range(2):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
            fields = _stat_fields(pid)
        except OSError:
            break
        if not is_launcher(command):
            break
        found.append((pid, fields[19]))
        pid = int(fields[1])
    return found


def is_launcher(command: list[str]) -> bool:
    """Whether a process with these arguments starts and tends ranks. A shell that ran the launcher
    does not: it may end long before a run that was put in the background."""
    program = os.path.basename(command[0])
    if program.startswith("python"):
        return any(os.path.basename(argument) in LAUNCHERS for argument in command[1:5])
    return program in LAUNCHERS


def _stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat after the command's name: [0] state, [1] parent, [19] start time."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _is_alive(pid: int, started: str) -> bool:
    try:
        fields = _stat_fields(pid)
    except OSError:
        return False
    return fields[19] == started and fields[0] != "Z"


def _exit_when_gone(ancestors: list[tuple[int, str]]) -> None:
    while all(_is_alive(pid, started) for pid, started in ancestors):
        time.sleep(POLL_SECONDS)
    os._exit(1)
