"""The index of a checkpoint: what each parameter is, and which file holds which part of it.

    manifest.json   size and digest of index.json and state.json; a checkpoint is complete with it
    index.json      the digests of all files of slices, and where every parameter lies in them
    rank_*.safetensors   the slices (coordtok.storage.slice_files)

Digests lead from the manifest to every byte, so that files of two checkpoints never mix.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coordtok.errors import CheckpointError
from coordtok.storage.json_files import read_json
from coordtok.storage.manifests import FileFacts, first_damage, read_manifest
from coordtok.storage.slice_files import ITEM, Span
from coordtok.storage.slice_layout import Layout, Run, runs_of

MANIFEST = "manifest.json"
INDEX = "index.json"
STATE_FILE = "state.json"
FORMAT = "coordtok checkpoint"
VERSION = 1

_LARGEST = 2**60


class DamagedCheckpoint(CheckpointError):
    """A checkpoint that is not as it was written; an older one may be."""


@dataclass(frozen=True)
class Parameter:
    """A parameter in a checkpoint."""

    shape: tuple[int, ...]
    kinds: tuple[str, ...]
    """What there is of it."""
    counts: dict[str, float]
    """States of the optimiser that are one number, such as `step`."""
    runs: tuple[Run, ...]
    """Where its parts lie, in order."""


@dataclass(frozen=True)
class Holding:
    """What one rank has written."""

    facts: FileFacts
    layout: Layout
    kinds: Mapping[str, Sequence[str]]
    counts: Mapping[str, Mapping[str, float]]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Holding":
        stored = json.loads(text)
        layout = {name: Span(*span) for name, span in stored.pop("layout").items()}
        return cls(FileFacts(**stored.pop("facts")), layout, **stored)


@dataclass(frozen=True)
class Index:
    """The contents of `index.json`."""

    optimizer: str
    """Class of the optimiser."""
    files: tuple[FileFacts, ...]
    """By rank: size, and digest of the header."""
    parameters: dict[str, Parameter]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: parameter.shape for name, parameter in self.parameters.items()}

    @property
    def runs(self) -> dict[str, tuple[Run, ...]]:
        return {name: parameter.runs for name, parameter in self.parameters.items()}

    def has(self, kind: str) -> bool:
        return any(kind in parameter.kinds for parameter in self.parameters.values())

    @classmethod
    def of(
        cls, optimizer: str, shapes: Mapping[str, Sequence[int]], holdings: Sequence[Holding]
    ) -> "Index":
        """The index of files that the ranks, in order, say they have written."""
        runs = runs_of([holding.layout for holding in holdings])
        kinds: dict[str, Sequence[str]] = {}
        counts: dict[str, Mapping[str, float]] = {}
        for holding in holdings:
            kinds |= holding.kinds
            counts |= holding.counts
        parameters = {
            name: Parameter(
                tuple(shape), tuple(kinds[name]), dict(counts.get(name, {})), tuple(runs[name])
            )
            for name, shape in shapes.items()
        }
        return cls(optimizer, tuple(holding.facts for holding in holdings), parameters)

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, stored: Any) -> "Index":
        """What `to_json` gave, parsed; checked, so that nothing it says costs memory or time.

        Raises:
            ValueError: it is none, of another version, or contradicts itself.
        """
        try:
            if (stored["format"], stored["version"]) != (FORMAT, VERSION):
                raise ValueError(f"{stored['format']} of version {stored['version']}")
            files = tuple(_facts(**facts) for facts in stored["files"])
            parameters = {
                str(name): _parameter(str(name), len(files), **each)
                for name, each in stored["parameters"].items()
            }
            index = cls(str(stored["optimizer"]), files, parameters)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{type(error).__name__} {error}") from None
        numbers = sum(math.prod(p.shape) * len(p.kinds) for p in parameters.values())
        if numbers * ITEM > sum(each.bytes for each in files):
            raise ValueError(f"it names {numbers} numbers, more than its files hold")
        return index


def _parameter(name: str, files: int, shape: Any, kinds: Any, counts: Any, runs: Any) -> Parameter:
    found = tuple(Run(*map(_whole, run)) for run in runs)
    parameter = Parameter(
        tuple(map(_whole, shape)),
        tuple(map(str, kinds)),
        {str(key): float(value) for key, value in counts.items()},
        found,
    )
    ends = [run.stop for run in found]
    follow = [run.start for run in found] == [0, *ends[:-1]]
    inside = all(run.length and run.files and run.file + run.files <= files for run in found)
    if not (follow and inside and ends and ends[-1] == math.prod(parameter.shape)):
        raise ValueError(f"the parts of {name} are not the whole of it, once")
    return parameter


def _facts(bytes: Any, sha256: Any) -> FileFacts:
    return FileFacts(_whole(bytes), str(sha256))


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise ValueError(f"{value!r} is no size")
    return value


def read_index(checkpoint: Path) -> Index:
    """The index of a complete checkpoint.

    Raises: as `check_facts`.
    """
    check_facts(checkpoint)
    try:
        return Index.from_json(read_json(checkpoint / INDEX))
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(
            f"{checkpoint} is damaged ({INDEX} is of no use: {error})"
        ) from None


def check_facts(checkpoint: Path) -> None:
    """Hold a checkpoint's index and state against its manifest.

    Raises:
        DamagedCheckpoint: they are not as they were written; the line names the file.
        CheckpointError: the checkpoint is of the format before this one.
    """
    try:
        manifest = read_manifest(checkpoint / MANIFEST)
    except (OSError, ValueError):
        raise DamagedCheckpoint(
            f"{checkpoint} is damaged ({MANIFEST} is missing or unreadable)"
        ) from None
    if any(name.endswith(".pt") for name in manifest):
        raise CheckpointError(
            f"{checkpoint} is of the former format, which holds pickles: if it is your own, "
            f"python scripts/convert_checkpoint.py {checkpoint} NEW_FOLDER"
        )
    unnamed = {INDEX, STATE_FILE} - manifest.keys()
    damage = f"{MANIFEST} does not name {min(unnamed)}" if unnamed else None
    damage = damage or first_damage(checkpoint, manifest.items())
    if damage:
        raise DamagedCheckpoint(f"{checkpoint} is damaged ({damage})")
