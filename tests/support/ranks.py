"""Real processes that run a script of this repository, one for each rank."""

import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from tests.support.warm_python import WarmProcess, WarmPython

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@functools.cache
def warm_python() -> WarmPython:
    """The one of this test session."""
    return WarmPython(ROOT)


class Ranks:
    """The processes of one command. They print into files, so that none waits for a reader."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[bytes] | WarmProcess] = []
        self._printed: list[tuple[IO[str], IO[str]]] = []

    def start(
        self, arguments: Sequence[str], cwd: Path, environment: dict[str, str], fresh: bool
    ) -> None:
        """Start one more rank: `python ARGUMENTS`."""
        files = new_file(), new_file()
        self._printed.append(files)
        if fresh:
            command = [sys.executable, *arguments]
            self.processes.append(
                subprocess.Popen(
                    command, cwd=cwd, env=environment, stdout=files[0], stderr=files[1]
                )
            )
        else:
            self.processes.append(warm_python().start(arguments, cwd, environment, *files))

    def wait(self, timeout: float = 900) -> list[int]:
        """Exit code of every rank. Those that have not ended by then are killed."""
        deadline = time.monotonic() + timeout
        try:
            return [process.wait(max(0, deadline - time.monotonic())) for process in self.processes]
        finally:
            self.signal(signal.SIGKILL)

    def signal(self, number: int, ranks: Sequence[int] | None = None) -> None:
        for rank, process in enumerate(self.processes):
            if (ranks is None or rank in ranks) and process.poll() is None:
                process.send_signal(number)

    def stdout(self, rank: int = 0) -> str:
        return content(self._printed[rank][0])

    def stderr(self, rank: int = 0) -> str:
        return content(self._printed[rank][1])

    @property
    def output(self) -> str:
        """All that all ranks have printed."""
        return "\n".join(content(file) for files in self._printed for file in files)


def new_file() -> IO[str]:
    return tempfile.TemporaryFile("w+")


def content(file: IO[str]) -> str:
    """All that was written to a file, whose place for the next write stays."""
    return Path(f"/proc/self/fd/{file.fileno()}").read_text(errors="replace")


def start(
    script: str,
    *arguments: object,
    ranks: int = 1,
    python: Sequence[str] = (),
    cwd: Path = ROOT,
    fresh: bool = False,
    **environment: str,
) -> Ranks:
    """Start `scripts/SCRIPT ARGUMENTS` on `ranks` ranks, as a launcher does.

    `python` are arguments of the interpreter before the script. A `fresh` process imports all that
    it needs itself; others are forks of one that has.
    """
    command = [*python, str(ROOT / "scripts" / script), *map(str, arguments)]
    return _start(command, ranks, cwd, fresh, environment)


def call(function: Callable[..., None], *arguments: object, ranks: int) -> None:
    """Call a function of a test module with `arguments`, which arrive as text, in processes of its
    own, one for each rank, and expect them to end well."""
    started = start_call(function, *arguments, ranks=ranks)
    assert started.wait() == [0] * ranks, started.output


def start_call(function: Callable[..., None], *arguments: object, ranks: int = 1) -> Ranks:
    """Start what `call` waits for."""
    module, name = function.__module__, function.__name__
    code = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from coordtok.cli import leave
from {module} import {name}
{name}(*sys.argv[1:])
leave(0)
"""
    command = ["-c", code, *map(str, arguments)]
    return _start(command, ranks, ROOT, False, {"DS_ACCELERATOR": "cpu"})


def _start(
    command: Sequence[str], ranks: int, cwd: Path, fresh: bool, environment: dict[str, str]
) -> Ranks:
    base = {
        **os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks), **environment,
    }  # fmt: skip
    started = Ranks()
    for rank in range(ranks):
        own = {**base, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        started.start(command, cwd, own, fresh)
    return started


def finish(script: str, *arguments: object, ranks: int = 1, code: int = 0) -> Ranks:
    """Run a script to its end and expect exit `code` of every rank."""
    started = start(script, *arguments, ranks=ranks)
    assert started.wait() == [code] * ranks, started.output
    return started
