"""The DeepSpeed JSONs that come with the project: `ds_configs/`, in a clone beside the package and
in an installed package inside it, and how these and others are read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import coordtok
from coordtok.errors import ConfigError
from coordtok.storage.json_files import read_json

SECTIONS = {
    "bf16", "fp16", "zero_optimization", "activation_checkpointing", "data_types", "aio",
}  # fmt: skip
"""Keys of a DeepSpeed JSON that hold an object."""

_PACKAGE = Path(coordtok.__file__).parent


def shipped_jsons() -> dict[str, Path]:
    """Each by its name, such as `zero3`."""
    folders = (_PACKAGE / "ds_configs", _PACKAGE.parent / "ds_configs")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.json"))}


def sharding_json(name_or_path: str) -> Path:
    """The JSON of that name, or else the file at that path."""
    return shipped_jsons().get(name_or_path, Path(name_or_path))


def read_sharding(name_or_path: str) -> dict[str, Any]:
    """What the JSON of that name, or else the file at that path, holds.

    Raises:
        ConfigError: it cannot be read, holds no JSON object, or odd sections or precisions.
    """
    try:
        config = read_json(sharding_json(name_or_path))
    except OSError as error:
        raise ConfigError(
            f"cannot read the DeepSpeed JSON {name_or_path}: {error.strerror}; name a DeepSpeed "
            f"JSON, or one of {', '.join(shipped_jsons())}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{name_or_path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{name_or_path} must hold a JSON object")
    for key in SECTIONS & config.keys():
        if not isinstance(config[key], dict):
            raise ConfigError(
                f"{key} is {config[key]!r} in {name_or_path}; it must be a JSON object"
            )
    _check_precisions(config, name_or_path)
    return config


_CHOICES: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("bf16", "enabled", (True, False, "auto")),
    ("data_types", "grad_accum_dtype", ("auto", "fp32", "bf16")),
    ("", "communication_data_type", ("fp32", "bf16")),
)
"""Section, key and values; left out, DeepSpeed takes float32, or the precision of the weights."""


def _check_precisions(config: Mapping[str, Any], source: str) -> None:
    """Of what DeepSpeed takes by more names, or fails at late, what plans and runs here know."""
    for section, key, choices in _CHOICES:
        part = config.get(section, {}) if section else config
        value = part.get(key)
        if key in part and not any(type(value) is type(each) and value == each for each in choices):
            name = f"{section}.{key}" if section else key
            shown = ", ".join(json.dumps(each) for each in choices)
            raise ConfigError(f"{name} is {value!r} in {source}; it must be one of {shown}")


Precision = Literal["bfloat16", "float32"]
"""Of the weights that compute."""


def precision_left_open(config: Mapping[str, Any]) -> bool:
    """Whether a DeepSpeed JSON leaves the precision to where it runs: `bf16.enabled` is "auto"."""
    return bool(config.get("bf16", {}).get("enabled") == "auto")


def precision_of(config: Mapping[str, Any], on_gpu: bool) -> Precision:
    """What a DeepSpeed JSON computes in. Where it is left open, bfloat16 on a GPU and float32 on a
    CPU, which multiplies bfloat16 more slowly."""
    if precision_left_open(config):
        return "bfloat16" if on_gpu else "float32"
    return "bfloat16" if config.get("bf16", {}).get("enabled", False) else "float32"
