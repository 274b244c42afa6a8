"""Files and folders that are whole or not there: written under another name, then renamed.

And folders that one command fills at a time, which a killed one goes on with.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from coordtok.errors import DataError


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes its name `path` only once it is complete and on the disk.

    Raises:
        DataError: the disk is full, a limit is reached or the folder cannot be written.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}: make room or choose "
            "another folder, then run the same command again"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` as `whole_file` does."""
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes its name `folder` only once it is complete.

    Raises:
        DataError: something is there already, or the folder cannot be written.
    """
    check_new(folder)
    folder = folder.resolve()
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        part.replace(folder)
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; make room or choose another folder"
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def check_new(folder: Path) -> None:
    """Raise a `DataError` if something is at `folder` (an empty folder is nothing), or if nothing
    can be made there: better now than after hours of work for it."""
    try:
        if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder} exists already; name a new folder")
        home = next(parent for parent in folder.absolute().parents if os.path.lexists(parent))
        os.rmdir(tempfile.mkdtemp(prefix=".", dir=home))
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; choose another folder"
        ) from None


@contextmanager
def sole_owner(folder: Path, command: str) -> Iterator[None]:
    """Hold an output folder, making it if need be: two that write there undo each other's work.

    Raises:
        DataError: another `command` holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise DataError(f"cannot use {folder} as a folder: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise DataError(f"another {command} is writing {folder}: wait for it, or stop it") from None
    finally:
        os.close(descriptor)
