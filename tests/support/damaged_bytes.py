"""Damage to bytes, whatever they mean."""

import random
from typing import NamedTuple


class Damaged(NamedTuple):
    data: bytes
    kind: str
    """Of damage, for the table."""
    detail: str


def damaged_bytes(data: bytes, rng: random.Random) -> Damaged:
    """Flipped bits, cut short, a piece missing, twice, overwritten or put in, nothing, or more."""
    changed, size = bytearray(data), len(data)
    at = rng.randrange(size) if size else 0
    to = min(size, at + rng.choice((1, 2, 8, 64, 512)))
    way = rng.choice(
        ["flip", "flips", "cut", "gone", "again", "zeros", "ones", "noise", "twice", "insert",
         "empty", "grow"]
    )  # fmt: skip
    if way in ("flip", "flips") and size:
        for _ in range(1 if way == "flip" else 20):
            changed[rng.randrange(size)] ^= 1 << rng.randrange(8)
    elif way == "cut":
        del changed[at:]
    elif way == "gone":
        del changed[at:to]
    elif way == "again":
        changed[at:at] = data[at:to]
    elif way in ("zeros", "ones"):
        changed[at:to] = (b"\0" if way == "zeros" else b"\xff") * (to - at)
    elif way == "noise":
        changed[at:to] = rng.randbytes(to - at)
    elif way == "twice":
        changed += data
    elif way == "insert":
        changed[at:at] = rng.randbytes(rng.randrange(1, 64))
    elif way == "grow":
        changed += bytes(1 << 20)
    else:
        changed.clear()
    return Damaged(bytes(changed), "bytes", f"{way} at {at}")
