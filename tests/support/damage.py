"""Damaged and hostile versions of good inputs, one for each state of a `random.Random`.

What a class of them has in common is written down once here, for the tests of readers and for
tests/campaign.
"""

import json
import random
from collections.abc import Callable
from typing import Any

import yaml

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, "", "x", "\x00", "\ud800", "a" * 5000, "../../x", [], {}, [1],
    {"name": 1}, [[]],
    0, -1, 1.5, 1e300, 10**12, 1 << 40, 1 << 63, 1 << 64, -(10**20), int("9" * 400), 5e-324,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
"""Values that one place of a document may suddenly have."""


def damaged_bytes(good: bytes, rng: random.Random) -> bytes:
    """Cut short, with flipped bits, a piece missing, twice or overwritten."""
    data = bytearray(good)
    if not data:
        return b"\x00"
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.choice((1, 2, 8, 64, 512)))
    match rng.randrange(6):
        case 0:
            del data[start:]
        case 1:
            del data[start:stop]
        case 2:
            data[start:start] = data[start:stop]
        case 3:
            data[start:stop] = rng.choice((b"\x00", b"\xff", b"9")) * (stop - start)
        case 4:
            data[start:stop] = rng.randbytes(stop - start)
        case _:
            for _ in range(rng.choice((1, 1, 4, 32))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def damaged_tree(good: Any, rng: random.Random) -> Any:
    """A document of lists and dicts with an odd value, a key too many or too few, in one place."""
    if isinstance(good, dict) and good and rng.random() < 0.9:
        tree = dict(good)
        key = rng.choice(list(tree))
        match rng.randrange(8):
            case 0:
                del tree[key]
            case 1:
                tree[rng.choice(("x", "", "\ud800", f"{key}x"))] = rng.choice(ODD_VALUES)
            case _:
                tree[key] = damaged_tree(tree[key], rng)
        return tree
    if isinstance(good, list) and good and rng.random() < 0.9:
        items = list(good)
        place = rng.randrange(len(items))
        match rng.randrange(6):
            case 0:
                del items[place]
            case 1:
                items.insert(place, items[place])
            case _:
                items[place] = damaged_tree(items[place], rng)
        return items
    return rng.choice(ODD_VALUES)


def damaged_json(good: Any, rng: random.Random) -> bytes:
    """A JSON text that is almost that of `good`."""
    text = json.dumps(good).encode()
    match rng.randrange(6):
        case 0 | 1:
            return damaged_bytes(text, rng)
        case 2:
            return _one_of(rng, _JSON_BOMBS)
        case _:
            return json.dumps(damaged_tree(good, rng)).encode()


def damaged_yaml(good: Any, rng: random.Random) -> str:
    """A YAML text that is almost that of `good`."""
    text = yaml.safe_dump(good)
    match rng.randrange(6):
        case 0 | 1:
            return damaged_bytes(text.encode(), rng).decode(errors="replace")
        case 2:
            return _one_of(rng, _YAML_BOMBS).decode()[:20_000]
        case 3:
            words = text.split(" ")
            words.insert(rng.randrange(len(words)), rng.choice(_YAML_MARKS))
            return " ".join(words)
        case _:
            return yaml.safe_dump(damaged_tree(good, rng))


def _one_of(rng: random.Random, bombs: tuple[Callable[[int], bytes], ...]) -> bytes:
    return rng.choice(bombs)(rng.choice((10, 70, 500, 900, 5000, 100_000)))


_JSON_BOMBS: tuple[Callable[[int], bytes], ...] = (
    lambda size: b"[" * size,
    lambda size: b"[" * size + b"]" * size,
    lambda size: b'{"a":' * size + b"1" + b"}" * size,
    lambda size: b'{"a":' + b"9" * size + b"}",
    lambda size: b'{"a":1e' + b"9" * size + b"}",
    lambda size: b'{"a":0.' + b"0" * size + b"1}",
    lambda size: b'"' + b"\\" * size,
    lambda size: b"\xff\xfe" + b"\x00" * size,
)
_YAML_BOMBS: tuple[Callable[[int], bytes], ...] = (
    *_JSON_BOMBS[:-1],
    lambda size: b"- " * size,
    lambda size: b"? " * size,
    lambda size: b"&a " * size,
    lambda size: b"a: &a [" + b"*a," * size + b"]",
    lambda size: b"a: &a {<<: [" + b"*a," * size + b"]}",
    lambda size: b"a: &a [1]\nb: [" + b"*a," * size + b"]",
    lambda size: b"a: 0x" + b"f" * size,
    lambda size: b"a: 1" + b":59" * size,
)
_YAML_MARKS = (
    "!!int ''", "!!float ''", "!!bool x", "!!binary x", "!!timestamp x", "!!set", "!!omap",
    "!!pairs", "!!python/name:os.system", "!!map", "!!seq", "!x", "&a", "*a", "<<:", "<<: *a", "?",
    "? ", ": ", "- ", "|", ">", "%YAML 3.0", "---", "...", "\t", "#", ".inf", "1e999", "0x", "0o9",
    "1:2:3", '"\\0"', '"\\ud800"', "[", "}", "2024-13-01", "=",
)  # fmt: skip
