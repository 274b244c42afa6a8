"""Import the authors' released weights as an export (docs/official_weights.md)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from coordtok.config.models import DiTModelConfig, TokenizerModelConfig
from coordtok.errors import CheckpointError, ConfigError
from coordtok.pretrained.card import (
    Card,
    GeneratorSettings,
    Origin,
    TokenizerId,
    TokenizerSettings,
    read_card,
)
from coordtok.pretrained.fingerprint import fingerprint
from coordtok.pretrained.official.generator_weights import translate_generator
from coordtok.pretrained.official.release_file import (
    OfficialKind,
    load_official,
    official_kind,
    tensors_of,
)
from coordtok.pretrained.official.statistics_log import LOG_NAME, read_statistics
from coordtok.pretrained.official.tokenizer_weights import translate_tokenizer
from coordtok.pretrained.write import check_target, write_export


@dataclass(frozen=True)
class ImportOptions:
    """What the authors' file does not say."""

    heads: int | None = None
    """Width / 64 by default, as in all released sizes."""
    points_per_pass: int | None = None
    """Of a tokenizer: patches that decode takes together; 1024 by default."""
    legacy_padding: bool = False
    """Of a tokenizer: encode short clips as the release does."""
    log: Path | None = None
    """Of a generator: the log of its training, with the statistics of its latents."""
    tokenizer: Path | None = None
    """Of a generator: the export of the tokenizer whose latents it makes, where it is at hand."""

    def check(self, kind: OfficialKind, path: Path) -> None:
        """Raise a `ConfigError` for an option that is the other kind's."""
        theirs: dict[str, dict[str, Any]] = {
            "generator": {
                "--points-per-pass": self.points_per_pass,
                "--legacy-padding": self.legacy_padding or None,
            },
            "tokenizer": {"--log": self.log, "--tokenizer": self.tokenizer},
        }
        for option, value in theirs[kind].items():
            if value is not None:
                raise ConfigError(f"{path} is the authors' {kind}, which takes no {option}")


def import_official(
    path: Path,
    folder: Path,
    options: ImportOptions | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
    progress: bool = False,
) -> Card:
    """Write the model in the authors' file `path` as an export to `folder`; its card.

    Raises:
        CheckpointError: not a file of theirs, its log lacks something, or `folder` is taken.
        ConfigError: options that do not go with it.
    """
    options = options or ImportOptions()
    check_target(folder, overwrite)
    content = load_official(path)
    kind = official_kind(content, path)
    options.check(kind, path)
    make = _tokenizer if kind == "tokenizer" else _generator
    card, weights = make(content, path, options)
    write_export(folder, card, weights, dtype, overwrite=overwrite, progress=progress)
    return card


Imported = tuple[Card, dict[str, torch.Tensor]]


def _tokenizer(content: Mapping[str, Any], path: Path, options: ImportOptions) -> Imported:
    theirs = tensors_of(content["model"], path)
    model, weights = translate_tokenizer(theirs, path, options.heads, options.legacy_padding)
    points = options.points_per_pass
    settings = TokenizerSettings() if points is None else TokenizerSettings(points)
    step = content.get("epoch")  # the release counts its training steps under this name
    origin = Origin("raw", step if isinstance(step, int) else None, {"imported_from": path.name})
    return Card(model, settings, origin), weights


def _generator(content: Mapping[str, Any], path: Path, options: ImportOptions) -> Imported:
    if options.log is None:
        raise ConfigError(
            f"{path} is the authors' generator, whose latents' mean and std are only in the log of "
            f"its training; name that {LOG_NAME} with --log"
        )
    averaged = content.get("ema")
    if not isinstance(averaged, Mapping):
        raise CheckpointError(f"{path} lacks ema, the averaged weights; download it again")
    model, weights = translate_generator(tensors_of(averaged, path), path, options.heads)
    statistics = read_statistics(options.log, model.latent)
    tokenizer = None if options.tokenizer is None else _reference(options.tokenizer, model)
    settings = GeneratorSettings(statistics.to_dict(), tokenizer)
    history = {"imported_from": path.name, "statistics_from": options.log.name}
    return Card(model, settings, Origin("ema", None, history)), weights


def _reference(folder: Path, generator: DiTModelConfig) -> TokenizerId:
    """The tokenizer at `folder`, if the generator can make its latents."""
    card = read_card(folder)
    if card.kind != "coordtok":
        raise ConfigError(f"--tokenizer {folder} holds no tokenizer, but a model of {card.kind}")
    difference = card.model.latent.difference(generator.latent)
    if difference is not None:
        raise ConfigError(
            f"--tokenizer {folder} has {difference} as the generator makes; name the tokenizer it "
            "was trained with"
        )
    return TokenizerId(str(folder), fingerprint(folder))


def summary(card: Card) -> str:
    """What an imported model is, in a line."""
    return _SUMMARIES[card.kind](card.model)


def _about_tokenizer(model: TokenizerModelConfig) -> str:
    padding = "as in the release" if model.legacy_padding else "masked (not so in the release)"
    return (
        f"tokenizer of {model.frames} frames of {model.height} x {model.width}, "
        f"width {model.dim}, {model.heads} heads, {model.video_layers} + {model.plane_layers} + "
        f"{model.decoder_layers} layers; padding of short clips {padding}"
    )


def _about_generator(model: DiTModelConfig) -> str:
    planes = ", ".join(str(plane).removeprefix("plane ") for plane in model.latent.planes)
    return (
        f"generator of planes {planes}; width {model.dim}, {model.heads} heads, {model.layers} "
        "layers"
    )


_SUMMARIES: dict[str, Callable[[Any], str]] = {
    "coordtok": _about_tokenizer,
    "dit": _about_generator,
}
