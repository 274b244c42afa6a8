"""The maps of the rooms: a package that describes itself names all of its modules."""

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAPS = {
    str(path.parent.relative_to(ROOT)): text
    for path in sorted(ROOT.glob("coordtok/*/**/__init__.py"))
    if (text := ast.get_docstring(ast.parse(path.read_text())))
}


@pytest.mark.parametrize("package", MAPS)
def test_every_module_is_on_the_map(package: str) -> None:
    named = set(re.findall(r"\w+\*?", MAPS[package]))
    modules = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert [each for each in modules if not any(fnmatch(each, name) for name in named)] == []


def test_rooms_of_many_stages_have_a_map() -> None:
    assert {f"coordtok/{room}" for room in ("data", "evaluation", "inference")} <= MAPS.keys()
