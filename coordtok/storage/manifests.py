"""Manifests: the files of a folder with their bytes and SHA-256, to know damage by.

Many processes may share the work: each takes its part of the names.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coordtok.storage.checksums import sha256_of_file
from coordtok.storage.files import replace_text
from coordtok.storage.json_files import read_json
from coordtok.storage.names import is_plain


@dataclass(frozen=True)
class FileFacts:
    """What identifies the content of a file."""

    bytes: int
    sha256: str


def measure(path: Path) -> FileFacts:
    """The facts of a file, which is on the disk then, and not only on its way there.

    Raises:
        OSError: it cannot be read.
    """
    digest = sha256_of_file(path, sync=True)
    return FileFacts(path.stat().st_size, digest)


def write_manifest(path: Path, files: Mapping[str, FileFacts]) -> None:
    """Write the facts of `files`, by their names in the folder of `path`; raises OSError."""
    facts = {name: asdict(each) for name, each in files.items()}
    replace_text(path, json.dumps(facts, indent=1, sort_keys=True))


def read_manifest(path: Path) -> dict[str, FileFacts]:
    """What `write_manifest` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    try:
        return {name: _facts(name, each) for name, each in read_json(path).items()}
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _facts(name: str, stored: Mapping[str, Any]) -> FileFacts:
    facts = FileFacts(**stored)
    if not is_plain(name) or type(facts.bytes) is not int or not isinstance(facts.sha256, str):
        raise ValueError(f"{name!r} is no file name, or has no size and checksum")
    return facts


def first_damage(folder: Path, files: Iterable[tuple[str, FileFacts]]) -> str | None:
    """What is wrong with the first file that is not as its manifest says, or None."""
    return next(filter(None, (_damage(folder / name, facts) for name, facts in files)), None)


def _damage(path: Path, facts: FileFacts) -> str | None:
    try:
        size = path.stat().st_size
        if size != facts.bytes:
            return f"{path.name} has {size} bytes instead of {facts.bytes}"
        if sha256_of_file(path) != facts.sha256:
            return f"the checksum of {path.name} differs"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"
    return None
