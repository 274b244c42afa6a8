"""Damaged JSON and YAML: odd values in one place, texts that no writer makes, bombs."""

import copy
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from tests.support.damaged_bytes import Damaged

ODD_NUMBERS = (
    "-1", "0", "1", "7", "-0.0", "0.5", "1e400", "-1e400", "NaN", "1e15", "1000000000000",
    str(2**31), str(2**63), "9" * 400, "9" * 5000,
)  # fmt: skip
ODD_VALUES = (
    *ODD_NUMBERS, "null", "true", '""', '"\\u0000"', '"\\ud800"', '"../../../etc/passwd"', "[]",
    "{}", "[[1]]", '{"a": 1}', "[" * 500 + "]" * 500, '"' + "x" * 100_000 + '"', '"|sh"', '"1"',
    '"\\u001b[31m"', "[1, 2, 3]",
)  # fmt: skip
"""As JSON, or nearly so."""
ODD_YAML = (
    "!!int ''", "!!float x", "!!python/object/apply:os.system [true]", "!!binary 'x'", "&a [*a]",
    "*nowhere", ".inf", ".nan", "-.inf", "0x" + "f" * 2000, "1:2:3:4", "2020-13-45", "? {a: b}",
    "!!timestamp x", "!!set {a}", "'\\x00'", "\x00", "\t- x", "1_000_000_000_000", "~", "<<",
)  # fmt: skip
_BOMB = "\n".join(
    f"b{level}: &b{level} [{', '.join([f'*b{level - 1}' if level else 'x'] * 9)}]"
    for level in range(12)
)
_MERGES = "\n".join(
    f"m{level}: &m{level} {{{f'<<: [*m{level - 1}, *m{level - 1}], ' if level else ''}k{level}: 1}}"
    for level in range(40)
)
_PLACE = "ODDVALUE"


def damaged_tree(good: Any, rng: random.Random) -> Any:
    """A copy of lists and dicts with an odd value, or too little or too much, in one place."""
    tree = copy.deepcopy(good)
    _change_tree(tree, rng)
    odd = odd_object(rng)
    for holder, key, _ in _places(tree):
        if holder[key] is _PLACE:
            holder[key] = odd
    return tree


def odd_object(rng: random.Random) -> Any:
    """What one place of a document may suddenly hold, as its reader would give it."""
    return json.loads(jsonable(rng.choice(ODD_VALUES)))


def jsonable(value: str) -> str:
    """Odd numbers that Python's own reader of JSON refuses to convert, as texts."""
    return f'"{value}"' if value.isdigit() and len(value) > 4000 else value


def encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _change_tree(tree: Any, rng: random.Random) -> str:
    """Change a value, a key or an item somewhere in lists and dicts; what is to become odd is
    `_PLACE` then."""
    holder, key, path = rng.choice(list(_places(tree)))
    way = rng.random()
    if way < 0.15:
        del holder[key]
        return f"{path} is gone"
    if way < 0.25 and isinstance(holder, dict):
        holder[str(key)[::-1]] = holder.pop(key)
        return f"{path} has another name"
    if way < 0.3 and isinstance(holder, list):
        holder.insert(0, holder[key])
        return f"{path} is there twice"
    if way < 0.4:
        other, its, of = rng.choice(list(_places(tree)))
        holder[key] = json.loads(json.dumps(other[its]))
        return f"{path} is what {of} is"
    holder[key] = _PLACE
    return path


def _places(tree: Any, before: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Each dict or list, a key or an index in it, and the dotted path there."""
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys):
        yield tree, key, f"{before}{key}"
        yield from _places(tree[key], f"{before}{key}.")


def damaged_json(data: bytes, rng: random.Random) -> Damaged:
    tree = json.loads(data)
    path, odd = _change_tree(tree, rng), rng.choice(ODD_VALUES)
    text = json.dumps(tree).replace(f'"{_PLACE}"', odd)
    if isinstance(tree, dict) and "fingerprint" in tree and rng.random() < 0.7:
        text = _signed(text)
    return Damaged(encode(text), "values of JSON", f"{path}, {odd[:40]}")


def _signed(text: str) -> str:
    """A shard index with the fingerprint of what it says."""
    stored = json.loads(text)
    named = ("version", "video", "codec", "lanes", "shards")
    facts = {name: stored[name] for name in named if name in stored}
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    stored["fingerprint"] = hashlib.sha256(canonical.encode("utf-8", "replace")).hexdigest()
    return json.dumps(stored)


def odd_json(data: bytes, rng: random.Random) -> Damaged:
    text = data.decode()
    changed = {
        "deep": encode("[" * 200_000 + "]" * 200_000),
        "twice": encode(text + text),
        "odd": encode(rng.choice(ODD_VALUES)),
        "byte order mark": b"\xef\xbb\xbf" + data,
        "UTF-16": text.encode("utf-16"),
        "bomb": rng.choice(_JSON_BOMBS)(rng.choice(_SIZES)),
    }
    way = rng.choice(list(changed))
    return Damaged(changed[way], "text of JSON", way)


def damaged_yaml(data: bytes, rng: random.Random) -> Damaged:
    tree = yaml.safe_load(data)
    path, odd = _change_tree(tree, rng), rng.choice([*ODD_VALUES, *ODD_YAML])
    text = yaml.safe_dump(tree).replace(_PLACE, odd)
    return Damaged(encode(text), "values of YAML", f"{path}, {odd[:40]}")


def odd_yaml(data: bytes, rng: random.Random) -> Damaged:
    text = data.decode()
    words = text.split(" ")
    words.insert(rng.randrange(len(words)), rng.choice(_YAML_MARKS))
    bomb = rng.choice(_YAML_BOMBS)(rng.choice(_SIZES))[:20_000].decode()
    changed = {
        "anchors": f"{text}\n{_BOMB}",
        "merges": f"{text}\n{_MERGES}",
        "deep": f"{text}\na: {'[' * 100_000}",
        "twice": f"{text}\n{text}",
        "tab": f"{text}\n\tx: 1",
        "NUL": f"{text}\nx: \0",
        "documents": f"{text}\n---\na: 1\n",
        "odd": rng.choice(ODD_YAML),
        "mark": " ".join(words),
        "bomb": bomb,
    }
    way = rng.choice(list(changed))
    return Damaged(encode(f"{changed[way]}\n"), "text of YAML", way)


_SIZES = (10, 70, 500, 900, 5000, 100_000)
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
