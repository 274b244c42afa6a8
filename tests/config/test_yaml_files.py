"""A YAML text is a mapping that any code can go through, or a ConfigError of one line."""

import contextlib
import copy
import random
from pathlib import Path

import pytest
import yaml

from coordtok.config.yaml_files import MOST_BYTES, parse_yaml, read_yaml
from coordtok.errors import ConfigError
from tests.support.damage import damage

GOOD = {"a": [1, 2.5, {"b": "text", "c": None}], "d": {"e": [[], {}, True], "f": "2024-01-01"}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("- a", "must hold a YAML mapping"),
        ("3", "must hold a YAML mapping"),
        ("a: [", "not valid YAML"),
        ("a: " + "[" * 5000, "not valid YAML: it is more than 32 levels deep"),
        ("a: 2024-13-01", "not valid YAML: month"),
        ("seed: 1\nrun_dir: x\nseed: 2", "the key 'seed' comes twice.*line 3"),
        ("a: {lr: 1, lr: 2}", "the key 'lr' comes twice"),
        ("? [a]\n: 1", "not valid YAML"),
    ],
)
def test_what_is_not_a_mapping_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"^x\.yaml .*{reason}") as caught:
        parse_yaml(text, "x.yaml")
    assert "\n" not in str(caught.value)


def test_a_merged_section_may_repeat_keys() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {c: &c {<<: *a, x: 3}}\nd: {<<: *c, y: 4}"
    tree = parse_yaml(text, "x.yaml")
    assert tree["b"] == {"c": {"x": 3, "y": 2}}
    assert tree["d"] == {"x": 3, "y": 4}


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(b"run_dir: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"run\.yaml is not text in UTF-8"):
        read_yaml(str(path))


def test_a_number_in_scientific_notation_is_a_number() -> None:
    assert parse_yaml("a: 1e-4", "x") == {"a": 1e-4}


BOMBS = {
    "lists": "a0: &a0 [1]\n"
    + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 12)),
    "merges": "a0: &a0 {x: 1}\n"
    + "".join(f"a{n}: &a{n} {{<<: [{f'*a{n - 1},' * 9}]}}\n" for n in range(1, 12)),
    "itself": "a: &a [*a]",
    "merged into itself": "a: &a {<<: *a}",
    "aliases of aliases": "a0: &a0 [1]\n"
    + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_stands_for_too_much_is_refused_at_once(name: str) -> None:
    with pytest.raises(ConfigError, match=r"levels deep, or contains itself|more than \d+ values"):
        parse_yaml(BOMBS[name], "bomb.yaml")


def test_a_file_is_regular_and_not_too_large(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_text("#" * (MOST_BYTES + 1))
    with pytest.raises(ConfigError, match=r"cannot read .*large\.yaml: it is larger than"):
        read_yaml(str(large))
    with pytest.raises(ConfigError, match="cannot read /dev/zero: it is no regular file"):
        read_yaml("/dev/zero")


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_damaged_texts_are_mappings_or_one_error(seed: int) -> None:
    rng = random.Random(seed)
    good = yaml.safe_dump(GOOD).encode()
    for _ in range(50 if seed == 1 else 500):
        text = damage("x.yaml", good, rng).data.decode(errors="replace")
        with contextlib.suppress(ConfigError):
            copy.deepcopy(parse_yaml(text, "x.yaml"))
