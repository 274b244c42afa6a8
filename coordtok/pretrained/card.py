"""What an export is and what its `config.json` says.

    EXPORT/  config.json         a `Card`: the model, how to use it, where it comes from
             model.safetensors   its weights, by the model's own names

The format has a version: every version up to `VERSION` is read (tests/data keeps an export of
each), and what is wrong with anything else is named. Nothing of an export is ever executed.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import coordtok
from coordtok.config.load import build, to_dict
from coordtok.config.models import DiTModelConfig, TokenizerModelConfig
from coordtok.config.ranges import Range, Section
from coordtok.config.sampling import SamplerConfig
from coordtok.config.training import MOST_POINTS
from coordtok.errors import CheckpointError, ConfigError
from coordtok.storage.json_files import read_json

FORMAT = "coordtok export"
VERSION = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class TokenizerId:
    """Which tokenizer: its `pretrained.fingerprint`, and where its export lay, for messages."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class TokenizerSettings(Section, at="settings"):
    """How a tokenizer is meant to be used, beside its model config."""

    points_per_pass: Annotated[int, Range(1, MOST_POINTS)] = 1024
    """Patches that were decoded together in training, hence what `decode` aims at."""


@dataclass(frozen=True)
class GeneratorSettings:
    """What a generator's numbers mean, and how it is meant to be sampled."""

    statistics: dict
    """`mean` and `std` of the latents for each plane and channel, with which they were normalised
    (coordtok.diffusion.statistics)."""
    tokenizer: TokenizerId | None = None
    """None where it is not known: weights of the authors' release."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)


@dataclass(frozen=True)
class Origin:
    """Where the weights come from."""

    weights: Literal["raw", "ema"]
    """As trained, or their moving average."""
    step: int | None = None
    """Training steps behind them, where known."""
    history: dict = field(default_factory=dict)
    """Plain JSON, for people and later stages: the run's config and data, or the imported file."""


class Kind(NamedTuple):
    """A kind of model that an export can hold; its name is `name` of the model config."""

    model: type
    settings: type
    loader: str
    """What loads it, for messages."""


KINDS = {
    "coordtok": Kind(TokenizerModelConfig, TokenizerSettings, "CoordTok.from_pretrained"),
    "dit": Kind(DiTModelConfig, GeneratorSettings, "TriplaneDiT.from_pretrained"),
}


@dataclass(frozen=True)
class Card:
    """The contents of `config.json`."""

    model: Any
    """Of the class that `KINDS` names for the kind; so with `settings`."""
    settings: Any
    origin: Origin

    @property
    def kind(self) -> str:
        return self.model.name

    def to_json(self) -> str:
        model = to_dict(self.model)
        stored = {
            "format": FORMAT,
            "version": VERSION,
            "coordtok": coordtok.__version__,
            "kind": model.pop("name"),
            "model": model,
            "settings": to_dict(self.settings),
            "origin": to_dict(self.origin),
        }
        return json.dumps(stored, indent=2) + "\n"


def read_card(folder: Path) -> Card:
    """The checked `config.json` of the export at `folder`.

    Raises:
        CheckpointError: no export, damaged, of a newer version or of an unknown kind.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(_why_no_export(folder))
    try:
        stored = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error}); export again") from None
    if not is_export_config(stored):
        raise CheckpointError(f"{path} is not of an export of this project; name another folder")
    version = stored.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise CheckpointError(
            f"{path} has version {version} of the export format; coordtok "
            f"{coordtok.__version__} reads up to {VERSION}: update coordtok"
        )
    return _card(stored, path)


def is_export_config(stored: Any) -> bool:
    return isinstance(stored, dict) and stored.get("format") == FORMAT


def _why_no_export(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: no such folder; name an export, as scripts/export.py makes it"
    if not folder.is_dir():
        return f"{folder} is a file; name the folder that holds {CONFIG} and {WEIGHTS}"
    if (folder / "checkpoints").is_dir() or (folder / "manifest.json").is_file():
        return f"{folder} is not exported yet: python scripts/export.py {folder} OUT_DIR"
    return f"{folder} has no {CONFIG}; name an export, as scripts/export.py makes it"


def _card(stored: dict[str, Any], path: Path) -> Card:
    kind = KINDS.get(str(stored.get("kind")))
    if kind is None:
        raise CheckpointError(
            f"{path} is of kind {stored.get('kind')!r}; coordtok {coordtok.__version__} knows "
            f"{', '.join(KINDS)}: update coordtok"
        )
    sections = {"model": kind.model, "settings": kind.settings, "origin": Origin}
    missing = [name for name in sections if not isinstance(stored.get(name), dict)]
    if missing:
        raise CheckpointError(f"{path} lacks the section {missing[0]!r}; export again")
    try:
        built: dict[str, Any] = {
            name: build(cls, stored[name], f"{name}.") for name, cls in sections.items()
        }
    except ConfigError as error:
        raise CheckpointError(f"{path} is of no use: {error}; export again") from None
    return Card(**built)
