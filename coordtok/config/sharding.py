"""The DeepSpeed JSONs that come with the project: `ds_configs/`, in a clone beside the package and
in an installed package inside it."""

from pathlib import Path

import coordtok

_PACKAGE = Path(coordtok.__file__).parent


def shipped_jsons() -> dict[str, Path]:
    """Each by its name, such as `zero3`."""
    folders = (_PACKAGE / "ds_configs", _PACKAGE.parent / "ds_configs")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.json"))}


def sharding_json(name_or_path: str) -> Path:
    """The JSON of that name, or else the file at that path."""
    return shipped_jsons().get(name_or_path, Path(name_or_path))
