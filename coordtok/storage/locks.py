"""Folders that one command fills at a time: two that write there undo each other's work.

A lock is the operating system's, so it ends with the processes that hold it, however they end.
"""

import fcntl
import math
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from coordtok.errors import DataError

_POLL_SECONDS = 0.2


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
    try:
        _acquire(descriptor)
    except BlockingIOError:
        os.close(descriptor)
        raise DataError(f"another {command} is writing {folder}: wait for it, or stop it") from None
    try:
        yield
    finally:
        os.close(descriptor)


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
    try:
        with suppress(OSError):
            _acquire(descriptor, math.inf)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def signed_lock(path: Path, patience_s: float) -> Iterator[None]:
    """Hold the lock file `path`, whose text names this process meanwhile, for people (`signature`).

    Raises:
        BlockingIOError: another process has held it for all of `patience_s`.
        OSError: it cannot be written, or its file system has no locks.
    """
    with open(path, "a+", encoding="utf-8") as file:
        _acquire(file.fileno(), patience_s)
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
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _acquire(descriptor: int, patience_s: float = 0.0) -> None:
    """Take the lock of an open file or folder; BlockingIOError where another process keeps it."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(_POLL_SECONDS)
