"""The runs of a study, one after another or side by side.

Each is a `deepspeed scripts/train.py` of its own, which resumes by itself: a study that was killed
goes on when it is started again, and what is finished is left alone. A run waits for the one whose
steps it shares.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from coordtok.scaling.prefixes import begin_at_prefix
from coordtok.scaling.ranking import is_finished
from coordtok.scaling.study import StudyRun

ATTEMPTS = 2
"""How often a run is started before it counts as failed."""
_POLL_SECONDS = 0.5
_SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)


class Outcome(NamedTuple):
    """How a run that this call started ended."""

    run: StudyRun
    failed: bool
    """After `ATTEMPTS` starts."""
    log: Path


class _Process(NamedTuple):
    run: StudyRun
    attempt: int
    cores: frozenset[int]
    popen: "subprocess.Popen[bytes]"


def run_study(runs: Sequence[StudyRun], parallel: int = 1) -> Iterator[Outcome]:
    """Train all runs that are not finished, `parallel` at a time on a share of the cores each;
    yields each as it ends. What is running ends with the caller, however that ends."""
    waiting = [(run, 1) for run in runs if not is_finished(run)]
    shares = _shares(parallel)
    running: list[_Process] = []
    try:
        while waiting or running:
            while len(running) < parallel and (ready := _ready(waiting, running)):
                waiting.remove(ready)
                free = next(each for each in shares if each not in [p.cores for p in running])
                running.append(_start(*ready, free))
            time.sleep(_POLL_SECONDS)
            for process in [each for each in running if each.popen.poll() is not None]:
                running.remove(process)
                failed = not is_finished(process.run)
                if failed and process.attempt < ATTEMPTS:
                    waiting.insert(0, (process.run, process.attempt + 1))
                else:
                    yield Outcome(process.run, failed, _log_path(process.run))
    finally:
        for process in running:
            process.popen.terminate()
            process.popen.wait()


def _ready(
    waiting: Sequence[tuple[StudyRun, int]], running: Sequence[_Process]
) -> tuple[StudyRun, int] | None:
    """The first of those that wait for no other: the run whose steps it shares has ended or, where
    that failed, it trains all of its own."""
    busy = {each.folder for each, _ in waiting} | {each.run.folder for each in running}
    for run, attempt in waiting:
        if run.prefix is None or run.prefix.folder not in busy:
            return run, attempt
    return None


def _start(run: StudyRun, attempt: int, cores: frozenset[int]) -> _Process:
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    begin_at_prefix(run)
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner"]

    def prepare() -> None:
        os.sched_setaffinity(0, cores)
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)

    port = ["--master_port", str(_free_port())]
    with open(_log_path(run), "ab") as log:
        popen = subprocess.Popen(
            [*launcher, *port, *run.command()[1:]],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            preexec_fn=prepare,
        )
    return _Process(run, attempt, cores, popen)


def _shares(parallel: int) -> list[frozenset[int]]:
    """This process's cores in `parallel` parts, none empty: with more parts than cores some share
    one."""
    cores = sorted(os.sched_getaffinity(0))
    if parallel > len(cores):
        cores = cores * -(-parallel // len(cores))
    return [frozenset(cores[first::parallel]) for first in range(parallel)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])


def _log_path(run: StudyRun) -> Path:
    return run.folder.with_name(f"{run.folder.name}.log")
