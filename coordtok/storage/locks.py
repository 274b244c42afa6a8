"""Folders that one command fills at a time: two that write there undo each other's work.

A lock is the operating system's, so it ends with the process that took it, however that ends: what
it forked, such as loaders that notice seconds later, does not hold it.
"""

import fcntl
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path

from coordtok.errors import DataError

_POLL_SECONDS = 0.2
_held: set[int] = set()
"""Descriptors of the locks that this process took."""


@contextmanager
def sole_owner(folder: Path, command: str) -> Iterator[None]:
    """Hold an output folder, making it if need be.

    Raises:
        DataError: another `command` holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise DataError(f"cannot use {folder} as a folder: {error.strerror}") from None
    with ExitStack() as held:
        held.callback(os.close, descriptor)
        try:
            held.enter_context(_locked(descriptor))
        except BlockingIOError:
            raise DataError(
                f"another {command} is writing {folder}: wait for it, or stop it"
            ) from None
        yield


@contextmanager
def taking_turns(folder: Path) -> Iterator[None]:
    """Hold an existing folder, when those who hold it before have let go. On file systems without
    locks nobody waits.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise DataError(f"cannot use {folder} as a folder: {error.strerror}") from None
    with ExitStack() as held:
        held.callback(os.close, descriptor)
        with suppress(OSError):
            held.enter_context(_locked(descriptor, math.inf))
        yield


@contextmanager
def signed_lock(path: Path, patience_s: float) -> Iterator[None]:
    """Hold the lock file `path`, whose text names this process meanwhile, for people (`signature`).

    Raises:
        BlockingIOError: another process has held it for all of `patience_s`.
        OSError: it cannot be written, or its file system has no locks.
    """
    with open(path, "a+", encoding="utf-8") as file, _locked(file.fileno(), patience_s):
        file.truncate(0)
        since = datetime.now().isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def signature(path: Path) -> str:
    """Who holds the lock file `path`, in words; empty if it is free or not there."""
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""


@contextmanager
def _locked(descriptor: int, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of an open file or folder; raises BlockingIOError as `_acquire` does."""
    _let_go_in_forks()
    _acquire(descriptor, patience_s)
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)


@cache
def _let_go_in_forks() -> None:
    os.register_at_fork(after_in_child=_let_go)


def _let_go() -> None:
    """Have the descriptors of inherited locks lead nowhere. They stay open: who opened them may
    close them."""
    if _held:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in _held:
            os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)
        _held.clear()


def _acquire(descriptor: int, patience_s: float) -> None:
    """Take the lock of an open file or folder; BlockingIOError where another process keeps it."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)
