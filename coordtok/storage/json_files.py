"""JSON from anywhere: our own files after an accident, and what strangers describe.

One reader for all of it: a text gives a value that any code here can go through, or a `ValueError`
that says in a line what is wrong with it. Callers say which file it was and what helps.
"""

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

from coordtok.storage.files import read_whole

MOST_BYTES = 64 << 20
"""Of a file. Shard indexes, which may be larger, are bounded where they are fetched."""
MOST_DEPTH = 64
"""Of brackets within brackets."""
_TOO_DEEP = f"it is more than {MOST_DEPTH} brackets deep"
_LEAST, _MOST = -(1 << 63), (1 << 63) - 1


def read_json(path: Path) -> Any:
    """The value in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than `MOST_BYTES`, or as `parse_json`.
    """
    return parse_json(read_whole(path, MOST_BYTES))


def parse_json(text: str | bytes, *, any_number: bool = False) -> Any:
    """The value of a text.

    any_number: take NaN, Infinity and whole numbers of more than 64 bits too, for texts of which
    the caller uses a few values and checks these.

    Raises:
        ValueError: no JSON, deeper than `MOST_DEPTH`, or numbers beyond 64 bits or not finite.
    """
    try:
        tree = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check(tree, any_number)
    return tree


def _check(tree: Any, any_number: bool) -> None:
    level = [tree]
    for _ in range(MOST_DEPTH):
        if not level:
            return
        if not any_number:
            _check_numbers(level)
        lists = (value for value in level if type(value) is list)
        dicts = (value.values() for value in level if type(value) is dict)
        level = [*chain.from_iterable(lists), *chain.from_iterable(dicts)]
    raise ValueError(_TOO_DEEP)


def _check_numbers(values: list[Any]) -> None:
    whole = [value for value in values if type(value) is int]
    if whole and not _LEAST <= min(whole) <= max(whole) <= _MOST:
        raise ValueError("it holds a whole number of more than 64 bits")
    if not all(math.isfinite(value) for value in values if type(value) is float):
        raise ValueError("it holds a number that is not finite")
