"""Run a command of this repository under conditions that a case asks for:

python -m tests.campaign.conditions '{"open_files": 20}' scripts/encode.py --model ...
"""

import ctypes
import json
import os
import resource
import runpy
import signal
import sys
from dataclasses import asdict, dataclass

_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_PR_CAPBSET_DROP = 24
_CAPABILITY_VERSION = 0x20080522
MOST_DATA = 12 << 30
"""Bytes a process may ask for, so that a command that wants all memory does not take it."""


@dataclass(frozen=True)
class Conditions:
    """What is wrong around a command."""

    permissions: bool = False
    """They count, also for root."""
    open_files: int | None = None
    """File descriptors it may have."""
    file_bytes: int | None = None
    """Where its disk is full: bytes that a file may hold."""
    stdout: str | None = None
    """"closed", "full", or "broken": a pipe that nobody reads."""
    without_folder: bool = False
    """Its working folder is removed."""


def command(conditions: Conditions, words: list[str]) -> list[str]:
    """What to give python so that it runs `words` (a script or -m MODULE, then arguments)."""
    return ["-m", __name__, json.dumps(asdict(conditions)), *words]


def _apply(conditions: Conditions) -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_DATA, MOST_DATA))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if conditions.without_folder:
        os.mkdir("gone")
        os.chdir("gone")
        os.rmdir("../gone")
    if conditions.stdout is not None:
        _replace_stdout(conditions.stdout)
    if conditions.permissions and os.geteuid() == 0:
        _drop_capabilities()
    if conditions.file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _limit(resource.RLIMIT_FSIZE, conditions.file_bytes)
    if conditions.open_files is not None:
        _limit(resource.RLIMIT_NOFILE, conditions.open_files)


def _limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, resource.getrlimit(what)[1]))


def _drop_capabilities() -> None:
    """Drop those by which root reads and writes what it may not, here and in what this starts."""
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    libc.capget(header, sets)
    for capability in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
        for effective_or_permitted in (0, 1):
            sets[effective_or_permitted] &= ~(1 << capability)
    if libc.capset(header, sets) != 0:
        raise OSError("capset failed")


def _replace_stdout(kind: str) -> None:
    if kind == "closed":
        os.close(1)
        sys.stdout = None  # type: ignore[assignment]
        return
    if kind == "full":
        target = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, target = os.pipe()
        os.close(reader)
    os.dup2(target, 1)
    os.close(target)


def _run(words: list[str]) -> None:
    if words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    _apply(Conditions(**json.loads(sys.argv[1])))
    _run(sys.argv[2:])
