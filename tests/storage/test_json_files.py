"""A JSON text is a value that any code can go through, or a ValueError of one line."""

import contextlib
import copy
import json
import os
import random
from pathlib import Path

import pytest

from coordtok.storage.json_files import MOST_DEPTH, parse_json, read_json
from tests.support.damage import damage

GOOD = {"a": [1, 2.5, {"b": "text", "c": None}], "d": {"e": [[], {}, True], "f": -7}}


def check(seed: int) -> None:
    text = damage("x.json", json.dumps(GOOD).encode(), random.Random(seed)).data
    with contextlib.suppress(ValueError):
        json.dumps(copy.deepcopy(parse_json(text)), allow_nan=False)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_damaged_texts_are_values_or_one_error(seed: int) -> None:
    for case in range(300 if seed == 1 else 10_000):
        check(1_000_000 * seed + case)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "more than 64 brackets deep"),
        ("[" * 100_000, "more than 64 brackets deep"),
        ("[NaN]", "not finite"),
        ('{"a": 1e400}', "not finite"),
        ("9" * 400, "more than 64 bits"),
        ("9" * 5000, "digits"),
        (b"\xff", "decode"),
    ],
)
def test_what_no_code_could_use_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_any_numbers_are_left_to_who_asks_for_them() -> None:
    assert parse_json("[1e400, " + "9" * 400 + "]", any_number=True)[1] == int("9" * 400)


def test_a_file_is_regular_and_not_too_large(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_json(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        read_json(Path("/dev/zero"))
    with open(tmp_path / "large", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="larger than"):
        read_json(tmp_path / "large")
    with pytest.raises(ValueError, match="null byte"):
        read_json(tmp_path / "a\0b")
