"""The package's own map."""

import re
from pathlib import Path

import coordtok.evaluation


def test_every_module_is_on_the_map() -> None:
    assert coordtok.evaluation.__doc__ is not None
    named = set(re.findall(r"\w+", coordtok.evaluation.__doc__))
    modules = {path.stem for path in Path(coordtok.evaluation.__path__[0]).glob("*.py")}
    assert modules - {"__init__"} <= named
