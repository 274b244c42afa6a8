"""The text of docs/config.md: every key of a run's YAML with its type, default and meaning.

    python -m coordtok.config.describe > docs/config.md

All of it is read off the dataclasses: a field's meaning is the docstring below it, its range its
`Range`.
"""

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from coordtok.config.load import as_yaml
from coordtok.config.ranges import ranges
from coordtok.config.schema import RunConfig

_HEAD = """\
# Configuration keys

Written by `python -m coordtok.config.describe > docs/config.md` from the dataclasses that
`coordtok/config/schema.py` is made of.

A run is one YAML file: a preset of `coordtok/config/presets/` by its name, or your own. On the
command line `section.key=value` changes a key, with the value in YAML's notation
(`train.steps=2000`, `model.video_patch=[8,8,8]`, `data.val_shards=null`). Unknown keys are errors.
How a run is sharded and at what precision stands in the DeepSpeed JSON (`ds_configs/`) instead.
"""


@dataclasses.dataclass(frozen=True)
class Key:
    """One row of the page."""

    path: str
    type: str
    default: str
    meaning: str

    def row(self) -> str:
        return f"| `{self.path}` | {self.type} | {self.default} | {self.meaning} |"


def page() -> str:
    found = list(sections(RunConfig))
    paths = [path for path, _ in found]
    parts = [_HEAD]
    for path, section in found:
        kind = f", `name: {section.name}`" if paths.count(path) > 1 else ""  # type: ignore[attr-defined]
        parts += [
            f"## {f'`{path}`' if path else 'The run'}{kind}\n",
            f"{inspect.getdoc(section)}\n",
            "| key | type | default | meaning |\n|---|---|---|---|",
            "\n".join(key.row() for key in keys(path, section)) + "\n",
        ]
    return "\n".join(parts)


def sections(section: type, path: str = "") -> Iterator[tuple[str, type]]:
    """A section and those inside it, depth first, as (dotted path, dataclass)."""
    yield path, section
    for name, hint in typing.get_type_hints(section).items():
        for inner in _dataclasses_of(hint):
            listed = "[]" if get_origin(hint) is tuple else ""
            yield from sections(inner, f"{_dotted(path, name)}{listed}")


def keys(path: str, section: type) -> list[Key]:
    """What a section's own keys are: all but those that are sections themselves."""
    hints, meanings = typing.get_type_hints(section), _docstrings(section)
    allowed = {name: f", {each}" for name, each in ranges(section).items()}
    return [
        Key(
            _dotted(path, field.name),
            _type_text(hints[field.name]) + allowed.get(field.name, ""),
            "required" if _is_required(field) else f"`{_yaml(field.default)}`",
            meanings.get(field.name, ""),
        )
        for field in dataclasses.fields(section)
        if not _dataclasses_of(hints[field.name]) or get_origin(hints[field.name]) is tuple
    ]


def _dotted(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _dataclasses_of(hint: Any) -> list[type]:
    """The dataclasses that a field holds: itself one, or one of several kinds, or a list of one."""
    if dataclasses.is_dataclass(hint):
        return [typing.cast(type, hint)]
    return [
        arg for arg in get_args(hint) if isinstance(arg, type) and dataclasses.is_dataclass(arg)
    ]


def _docstrings(section: type) -> dict[str, str]:
    """The string below each field of a dataclass, on one line."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in zip(tree.body, tree.body[1:])
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def _type_text(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{as_yaml(value)}`" for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if arg is type(None) else _type_text(arg) for arg in args)
    if origin is tuple:
        return "str or list" if args[-1] is ... else f"list of {len(args)} {_type_text(args[0])}"
    return str(hint.__name__)


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _yaml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


if __name__ == "__main__":
    print(page(), end="")
