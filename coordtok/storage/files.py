"""Files and folders that are whole or not there: written under another name, then renamed."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from coordtok.errors import DataError, fix_for

MOST_TEXT_BYTES = 1 << 28
"""Of a list or a log that people write or read."""


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read; an OSError where it is a pipe or a device, which may have no end."""
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe waits for its writer


def read_whole(path: Path, most: int) -> bytes:
    """All of a file that should have at most `most` bytes.

    Raises:
        OSError: it cannot be read, or is no regular file: a pipe may have no end.
        ValueError: it is larger.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is larger than {most} bytes")
    return data


@contextmanager
def partial_path(path: Path) -> Iterator[Path]:
    """Where to write what takes the name `path` once the block is left; after an exception nothing
    of it remains.

    Raises:
        OSError: it cannot take that name, or something other than a file has it: whoever may do
            everything would put a file in the place of /dev/null. An error in the block that names
            the partial file names `path` from here on.
    """
    if not path.name or path.is_dir():  # without a name: a root, or the working folder
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    target = Path(os.path.realpath(path))  # a link stays, and leads to the new file
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        yield partial
        os.replace(partial, target)
    except OSError as error:
        if error.filename == str(partial):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replaced_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes its name `path` only once it is complete and on the disk.

    Raises:
        OSError: the disk is full, a limit is reached or the folder cannot be written. For callers
            with words of their own for that; the others use `whole_file`.
    """
    with partial_path(path) as partial, open(partial, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def replace_text(path: Path, text: str) -> None:
    """Write `text` to `path` as `replaced_file` does."""
    with replaced_file(path) as file:
        file.write(text.encode())


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """As `replaced_file`, with an error for the user.

    Raises:
        DataError: the disk is full, a limit is reached or the folder cannot be written.
    """
    try:
        with replaced_file(path) as file:
            yield file
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}: {fix_for(error)}, then run the same "
            "command again"
        ) from None


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` as `whole_file` does."""
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def whole_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """A folder to fill that takes its name `folder` only once it is complete.

    replace: it takes the place of what is there.

    Raises:
        DataError: something is there already, or the folder cannot be written.
    """
    if not replace:
        check_new(folder)
    folder = Path(os.path.realpath(folder))  # which raises for no link
    part, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        part.mkdir(parents=True)
        yield part
        if replace and folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"cannot write {folder}: {error.strerror or error}; {fix_for(error)}"
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


def remove_partial(folder: Path, name: str = "*") -> None:
    """Remove what killed writers of `name` (a glob pattern) left in a folder that is held."""
    for path in folder.glob(f"{name}.*.part"):
        path.unlink(missing_ok=True)


def append_whole(path: Path, text: str) -> None:
    """Append all of `text`, or leave the file as it was and raise OSError."""
    with open(path, "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        data = memoryview(text.encode())
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            file.truncate(before)
            raise
