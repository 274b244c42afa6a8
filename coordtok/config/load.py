"""YAML and dotted overrides to a checked `RunConfig`, and back.

Unknown keys are refused with the nearest known name, all of them at once; values of the wrong type
with the key, the value and what was expected.
"""

import dataclasses
import difflib
import os
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from coordtok.config.schema import RunConfig
from coordtok.config.training import DatasetConfig
from coordtok.config.yaml_files import parse_value, parse_yaml, read_yaml
from coordtok.errors import ConfigError

T = TypeVar("T")
_LONGEST_SHOWN = 80


def preset_names() -> list[str]:
    """Names that `load_config` takes in place of a path."""
    folder = resources.files("coordtok.config") / "presets"
    return sorted(
        item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")
    )


def load_config(preset_or_path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The preset of that name or the YAML file at that path, with `key.path=value` overrides.

    Raises:
        ConfigError: what of it cannot be run, in one line; all wrong keys at once.
    """
    tree = _read_preset(preset_or_path)
    unknown = list(_unknown_keys(RunConfig, tree))
    for override in overrides:
        _apply_override(tree, override)
    mistyped = [key for key in _unknown_keys(RunConfig, tree) if key not in unknown]
    problems = [f"{preset_or_path} has {each}" for each in unknown]
    problems += [f"the command line has {each}" for each in mistyped]
    if missing := list(_missing_keys(RunConfig, tree)):
        problems.append(f"{preset_or_path} lacks {', '.join(missing)}")
    if problems:
        raise ConfigError("; ".join(problems))
    return build(RunConfig, tree)


def _read_preset(name: str) -> dict[str, Any]:
    """The YAML of the preset of that name, or else at that path."""
    if name in preset_names():
        path = resources.files("coordtok.config") / "presets" / f"{name}.yaml"
        return parse_yaml(path.read_text(encoding="utf-8"), name)
    if not os.path.lexists(name):
        near = difflib.get_close_matches(name, preset_names(), 1)
        hint = f"did you mean {near[0]!r}" if near else f"presets are {', '.join(preset_names())}"
        raise ConfigError(f"no preset and no file is called {name!r}; {hint}")
    return read_yaml(name)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ConfigError(f"override {_shown(override)} is not of the form key.path=value")
    *parents, leaf = path.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"override {_shown(override)}: {parent} is a value, not a section")
        node = child
    try:
        node[leaf] = parse_value(text)
    except ValueError as error:
        raise ConfigError(
            f"override {_shown(override)}: the value is not valid YAML: {error}"
        ) from None


def build(cls: type[T], tree: Mapping[str, Any], path: str = "") -> T:
    """The dataclass `cls` from a mapping, every key and type checked.

    Raises:
        ConfigError: all keys that are unknown or missing, or the first value that cannot be.
    """
    if not isinstance(tree, Mapping):
        named = path.rstrip(".") or "the config"
        raise ConfigError(f"{named} is {_shown(tree)}; it must be a section of keys")
    problems = [*_unknown_keys(cls, tree, path)]
    problems += [f"{key} is missing" for key in _missing_keys(cls, tree, path)]
    if problems:
        raise ConfigError("; ".join(problems))
    hints = typing.get_type_hints(cls)
    return cls(**{key: _convert(value, hints[key], f"{path}{key}") for key, value in tree.items()})


def _unknown_keys(cls: type, tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """What there is to say of each key of `tree`, and of its sections, that is no field."""
    names = [field.name for field in dataclasses.fields(cls)]
    for key in tree:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1)
            hint = f"did you mean {path}{near[0]}" if near else f"known are {', '.join(names)}"
            yield f"unknown key {_cut(f'{path}{key}')} ({hint})"
    for inner in _sections(cls, tree, path):
        yield from _unknown_keys(*inner)


def _missing_keys(cls: type, tree: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Fields without a default that `tree` and its sections lack."""
    for field in dataclasses.fields(cls):
        required = (field.default, field.default_factory) == (dataclasses.MISSING,) * 2
        if required and field.name not in tree:
            yield f"{path}{field.name}"
    for inner in _sections(cls, tree, path):
        yield from _missing_keys(*inner)


def _sections(
    cls: type, tree: Mapping[str, Any], path: str
) -> Iterator[tuple[type, Mapping[str, Any], str]]:
    """The sections in `tree` as (dataclass, mapping, path), those in lists too."""
    for name, hint in typing.get_type_hints(cls).items():
        values = tree.get(name)
        kinds = [kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind)]
        for value in values if isinstance(values, list | tuple) else [values]:
            if kinds and isinstance(value, Mapping):
                where = f"{path}{name}"
                yield _kind(value, kinds, where), value, f"{where}."  # type: ignore[arg-type]


def _convert(value: Any, hint: Any, path: str) -> Any:
    if hint == tuple[DatasetConfig, ...]:
        return _datasets(value, path)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, f"{path}.")  # type: ignore[arg-type]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [arg for arg in args if arg is not type(None)]
        return _convert(value, _kind(value, kinds, path), path)
    if origin is Literal:
        if not any(type(value) is type(arg) and value == arg for arg in args):
            choices = ", ".join(map(as_yaml, args))
            raise ConfigError(f"{path} is {_shown(value)}; it must be one of {choices}")
        return value
    if origin is tuple and args[1:] == (...,):
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path} is {_shown(value)}; it must be a list")
        return tuple(_convert(item, args[0], f"{path}.{at}") for at, item in enumerate(value))
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(args):
            raise ConfigError(
                f"{path} is {_shown(value)}; it must be a list of {len(args)} numbers"
            )
        return tuple(_convert(item, arg, path) for item, arg in zip(value, args))
    return _scalar(value, origin or hint, path)


def _kind(value: Any, kinds: Sequence[type], path: str) -> type:
    """The tuple that a list is to be, the dataclass that a section's `name` stands for; else the
    first one."""
    if isinstance(value, list | tuple):
        return next((kind for kind in kinds if get_origin(kind) is tuple), kinds[0])
    if len(kinds) == 1 or not isinstance(value, Mapping) or "name" not in value:
        return kinds[0]
    by_name = {kind.name: kind for kind in kinds}  # type: ignore[attr-defined]
    if value["name"] not in list(by_name):
        named = f"{path}.name is {_shown(value['name'])}"
        raise ConfigError(f"{named}; it must be one of {', '.join(by_name)}")
    return by_name[value["name"]]


def _scalar(value: Any, hint: type, path: str) -> Any:
    wanted: Any = (int, float) if hint is float else hint
    wrong_bool = isinstance(value, bool) and hint is not bool
    if wrong_bool or not isinstance(value, wanted):
        raise ConfigError(f"{path} is {_shown(value)}; it must be of type {hint.__name__}")
    if isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
        raise ConfigError(f"{path} is {_shown(value)}; a text has no NUL and no half characters")
    if hint is int and not -(1 << 63) <= value < 1 << 63:
        raise ConfigError(f"{path} is {_shown(value)}; it must be a number of at most 64 bits")
    if hint is float and not abs(value) <= sys.float_info.max:
        raise ConfigError(f"{path} is {_shown(value)}; it must be finite")
    return float(value) if hint is float else value


def _is_unicode(text: str) -> bool:
    """Whether it can be written to a file: it has no surrogates."""
    return text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text)


def as_yaml(choice: Any) -> str:
    """One of several words or `true` and `false`, as a config has it."""
    return str(choice).lower() if isinstance(choice, bool) else str(choice)


def _shown(value: Any) -> str:
    """A value as in Python, cut short where it is long."""
    try:
        return _cut(repr(value))
    except ValueError:
        return "a number of thousands of digits"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _datasets(value: Any, path: str) -> tuple[DatasetConfig, ...]:
    """A path, or a list of paths and `{path, weight}` sections."""
    datasets = []
    for item in value if isinstance(value, list | tuple) else [value]:
        section = {"path": item} if isinstance(item, str) else item
        if not isinstance(section, Mapping):
            raise ConfigError(
                f"{path} has {_shown(item)}; name a folder or URL, or path and weight"
            )
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
