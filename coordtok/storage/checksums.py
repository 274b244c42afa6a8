"""SHA-256 of files, in hexadecimal."""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from coordtok.storage.files import open_regular

_CHUNK = 1 << 22


def sha256_of_rest(file: BinaryIO) -> str:
    """Of what follows in an open file."""
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def sha256_of_file(path: Path, *, sync: bool = False) -> str:
    """Of a whole file; with `sync` of one that is on the disk, and not only on its way there.

    Raises:
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        if sync:
            os.fsync(file.fileno())
        return sha256_of_rest(file)
