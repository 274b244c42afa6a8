"""Files that are either whole or not there: written under another name, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from coordtok.config.errors import DataError


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
