"""docs/config.md is what the dataclasses say, and they say something of every key."""

from pathlib import Path

import pytest

from coordtok.config.describe import Key, keys, page, sections
from coordtok.config.schema import RunConfig

PAGE = Path(__file__).parent.parent.parent / "docs/config.md"
KEYS = [key for path, section in sections(RunConfig) for key in keys(path, section)]


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text() == page(), "run: python -m coordtok.config.describe > docs/config.md"


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.path)
def test_every_key_has_a_meaning(key: Key) -> None:
    assert key.meaning


def test_every_section_says_what_it_is() -> None:
    for _, section in sections(RunConfig):
        assert not (section.__doc__ or "").startswith(f"{section.__name__}("), section


def test_types_defaults_and_ranges_are_the_fields() -> None:
    found = {key.path: key for key in KEYS}
    assert found["train.steps"].type == "int, between 1 and 99,999,999"
    assert found["train.steps"].default == "required"
    assert found["model.plane_patch"].default == "`[16, 8, 8]`"
    assert found["train.micro_batch"].type == "int or null, between 1 and 1,048,576"
    assert found["ema.decay"].type == "float, in [0, 1)"
    assert found["optim.schedule"].type == "`constant`, `cosine`, `wsd`"
    assert found["data.shards[].weight"].default == "`1.0`"
