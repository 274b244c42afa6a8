"""YAML and dotted overrides to a checked `RunConfig`, and back.

Unknown keys are refused with the nearest known name, values of the wrong type with the key, the
value and what was expected.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from coordtok.config.schema import DatasetConfig, RunConfig
from coordtok.errors import ConfigError, one_line

T = TypeVar("T")

# ValueError: a date such as 2024-13-01. RecursionError: brackets a thousand deep.
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number and a repeated key an error, as in YAML 1.2."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not when values are made: by then the keys of << are among a section's own.
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.composer.ComposerError(
                        None, None, f"the key {key.value!r} comes twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def preset_names() -> list[str]:
    """Names that `load_config` takes in place of a path."""
    folder = resources.files("coordtok.config") / "presets"
    return sorted(
        item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")
    )


def load_config(preset_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The preset of that name or the YAML file at that path, with `key.path=value` overrides."""
    tree = _read_preset(preset_or_path) or read_yaml(preset_or_path)
    for override in overrides:
        _apply_override(tree, override)
    return build(RunConfig, tree)


def _read_preset(name: str) -> dict[str, Any] | None:
    """The preset of that name; None where it is the path of a file."""
    if name in preset_names():
        path = resources.files("coordtok.config") / "presets" / f"{name}.yaml"
        return parse_yaml(path.read_text(encoding="utf-8"), name)
    if not Path(name).is_file():
        near = difflib.get_close_matches(name, preset_names(), 1)
        hint = f"did you mean {near[0]!r}" if near else f"presets are {', '.join(preset_names())}"
        raise ConfigError(f"no preset and no file is called {name!r}; {hint}")
    return None


def read_yaml(path: str) -> dict[str, Any]:
    """The YAML mapping in a file.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """A YAML mapping; `name` stands in the error when it is not one."""
    try:
        tree = yaml.load(text, _Loader)
    except _YAML_ERRORS as error:
        raise ConfigError(f"{name} is not valid YAML: {one_line(error)}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{name} must hold a YAML mapping, not {type(tree).__name__}")
    return tree


def _apply_override(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"override {override!r} is not of the form key.path=value")
    *parents, leaf = path.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {override!r}: {parent} is a value, not a section")
        node = child
    try:
        node[leaf] = yaml.load(text, _Loader)
    except _YAML_ERRORS as error:
        raise ConfigError(
            f"override {override!r}: the value is not valid YAML: {one_line(error)}"
        ) from None


def build(cls: type[T], tree: Mapping[str, Any], path: str = "") -> T:
    """The dataclass `cls` from a mapping, every key and type checked."""
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    for key in tree:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, 1)
            hint = f"did you mean {path}{near[0]}" if near else f"known are {', '.join(fields)}"
            raise ConfigError(f"unknown key {path}{key}; {hint}")
    for name, f in fields.items():
        required = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if required and name not in tree:
            raise ConfigError(f"{path}{name} is missing; it has no default")
    return cls(**{key: _convert(value, hints[key], f"{path}{key}") for key, value in tree.items()})


def _convert(value: Any, hint: Any, path: str) -> Any:
    if hint == tuple[DatasetConfig, ...]:
        return _datasets(value, path)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} is {value!r}; it must be a section of keys")
        return build(hint, value, f"{path}.")  # type: ignore[arg-type]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [arg for arg in args if arg is not type(None)]
        return _convert(value, kinds[0] if len(kinds) == 1 else _kind(value, kinds, path), path)
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{path} is {value!r}; it must be one of {', '.join(map(str, args))}")
        return value
    if origin is tuple and args[1:] == (...,):
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path} is {value!r}; it must be a list")
        return tuple(_convert(item, args[0], f"{path}.{at}") for at, item in enumerate(value))
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(args):
            raise ConfigError(f"{path} is {value!r}; it must be a list of {len(args)} numbers")
        return tuple(_convert(item, arg, path) for item, arg in zip(value, args))
    return _scalar(value, hint, path)


def _kind(value: Any, kinds: Sequence[type], path: str) -> type:
    """The dataclass that a section's `name` stands for; the first one where it has none."""
    by_name = {kind.name: kind for kind in kinds}  # type: ignore[attr-defined]
    name = value.get("name", kinds[0].name) if isinstance(value, Mapping) else None  # type: ignore[attr-defined]
    if name is None:
        return kinds[0]
    if name not in by_name:
        raise ConfigError(f"{path}.name is {name!r}; it must be one of {', '.join(by_name)}")
    return by_name[name]


def _scalar(value: Any, hint: type, path: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrong_bool = isinstance(value, bool) and hint is not bool
    if wrong_bool or not isinstance(value, hint):
        raise ConfigError(f"{path} is {value!r}; it must be of type {hint.__name__}")
    return value


def _datasets(value: Any, path: str) -> tuple[DatasetConfig, ...]:
    """A path, or a list of paths and `{path, weight}` sections."""
    datasets = []
    for item in value if isinstance(value, list | tuple) else [value]:
        section = {"path": item} if isinstance(item, str) else item
        if not isinstance(section, Mapping):
            raise ConfigError(f"{path} has {item!r}; name a folder or URL, or path and weight")
        datasets.append(build(DatasetConfig, section, f"{path}."))
    return tuple(datasets)


def to_dict(config: Any) -> dict[str, Any]:
    """Plain dicts, lists and scalars: what YAML and JSON hold."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def to_yaml(config: RunConfig) -> str:
    return yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True)
