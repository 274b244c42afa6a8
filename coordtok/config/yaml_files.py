"""YAML that people write: one reader, whose every refusal is a `ConfigError` of one line.

A text may be small and yet stand for more than memory holds, because an alias repeats what its
anchor names and `<<` merges it. So values are counted with all aliases written out.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from coordtok.errors import ConfigError, one_line
from coordtok.storage.files import read_whole

MOST_BYTES = 1 << 18
MOST_DEPTH = 32
MOST_VALUES = 20_000
"""Scalars, lists and mappings of a text, aliases written out."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-4 is a number and a repeated key an error, as in YAML 1.2."""

    _depth = _values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        self._values += 1
        _check(self._values, self._depth)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

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

    def get_single_node(self) -> yaml.Node | None:
        root: yaml.Node | None = super().get_single_node()
        if root is not None:
            _measure(root, 1, {})
        return root


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_yaml(path: str) -> dict[str, Any]:
    """The YAML mapping in a file.

    Raises:
        ConfigError: it cannot be read, or as `parse_yaml`.
    """
    try:
        text = read_whole(Path(path), MOST_BYTES).decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8: {error}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, name: str) -> dict[str, Any]:
    """A YAML mapping; `name` stands in the error when it is not one.

    Raises:
        ConfigError: no YAML, more than `MOST_VALUES` or `MOST_DEPTH`, or no mapping.
    """
    try:
        tree = parse_value(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{name} must hold a YAML mapping, not {type(tree).__name__}")
    return tree


def parse_value(text: str) -> Any:
    """Any YAML value; a `ValueError` of one line where it is none, or too much."""
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(one_line(error)) from None
    except Exception as error:  # what constructors raise of a value that its tag does not fit
        raise ValueError(f"a value does not fit its !!tag ({one_line(error)})") from None


def _measure(node: yaml.Node, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node that is `depth` levels deep stands for, and how many levels they have;
    `known` has what was measured before."""
    _check(0, depth)
    if id(node) not in known:
        inside: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inside = [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            inside = node.value
        measured = [_measure(each, depth + 1, known) for each in inside]
        values = 1 + sum(values for values, _ in measured)
        known[id(node)] = values, 1 + max((levels for _, levels in measured), default=0)
    values, levels = known[id(node)]
    _check(values, depth + levels - 1)
    return values, levels


def _check(values: int, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise ValueError(f"it is more than {MOST_DEPTH} levels deep, or contains itself")
    if values > MOST_VALUES:
        raise ValueError(f"it stands for more than {MOST_VALUES} values")
