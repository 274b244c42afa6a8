"""The maps of the rooms: the `__init__` of a folder names all of its modules."""

import ast
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAPS = {
    str(path.parent.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text())) or ""
    for path in [
        *sorted(ROOT.glob("coordtok/*/**/__init__.py")),
        *(ROOT / folder / "__init__.py" for folder in ("data_prep", "scripts")),
    ]
}
ALONE = {"coordtok/ops"}
"""Folders of one module, which the README describes."""


@pytest.mark.parametrize("package", sorted(MAPS.keys() - ALONE))
def test_every_module_is_on_the_map(package: str) -> None:
    named = set(re.findall(r"\w+\*?", MAPS[package]))
    modules = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert [each for each in modules if not any(fnmatch(each, name) for name in named)] == []
