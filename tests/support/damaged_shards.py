"""Damage from a seed: flipped bits, and indexes that lie with a fingerprint that is right."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from coordtok.data.index import CHECKSUMS, INDEX_NAME


def flip_bit(content: bytes, rng: Random) -> bytes:
    """`content` with one bit of it changed."""
    damaged = bytearray(content)
    damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


@contextmanager
def flipped_bit(path: Path, start: int, stop: int, rng: Random) -> Iterator[int]:
    """Have one bit in [start, stop) of a file changed; gives which byte it is in."""
    offset = rng.randrange(start, stop)
    with open(path, "r+b", buffering=0) as file:
        whole = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), flip_bit(whole, rng), offset)
        yield offset
        os.pwrite(file.fileno(), whole, offset)


def forge_index(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what an index says, and its fingerprint with it."""
    path = folder / INDEX_NAME
    stored = json.loads(path.read_text())
    checksums = stored.pop(CHECKSUMS)
    change(stored)
    stored.pop("fingerprint")
    canonical = json.dumps(stored, sort_keys=True, separators=(",", ":"))
    stored["fingerprint"] = hashlib.sha256(canonical.encode()).hexdigest()
    path.write_text(json.dumps({**stored, CHECKSUMS: checksums}))
