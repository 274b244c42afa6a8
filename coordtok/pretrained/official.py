"""Import the authors' released weights as an export (OFFICIAL_WEIGHTS: layout and numerics)."""

from pathlib import Path

import torch

from coordtok.config.errors import CheckpointError
from coordtok.pretrained.card import Card, Origin, TokenizerSettings
from coordtok.pretrained.official_file import load_official, official_kind, tensors_of
from coordtok.pretrained.official_tokenizer import translate_tokenizer
from coordtok.pretrained.write import check_target, write_export


def import_official(
    path: Path,
    folder: Path,
    settings: TokenizerSettings,
    *,
    heads: int | None = None,
    legacy_padding: bool = False,
    dtype: torch.dtype = torch.float32,
    overwrite: bool = False,
    progress: bool = False,
) -> Card:
    """Write the tokenizer in the authors' file `path` as an export to `folder`; its card.

    heads: width / 64 by default. legacy_padding: encode short clips as the release does.
    """
    check_target(folder, overwrite)
    content = load_official(path)
    if official_kind(content, path) != "tokenizer":
        raise CheckpointError(
            f"{path} is the authors' generator, which cannot be imported yet; name their tokenizer"
        )
    theirs = tensors_of(content["model"], path)
    model, weights = translate_tokenizer(theirs, path, heads, legacy_padding)
    step = content.get("epoch")  # the release counts its training steps under this name
    origin = Origin("raw", step if isinstance(step, int) else None, {"imported_from": path.name})
    card = Card(model, settings, origin)
    write_export(folder, card, weights, dtype, overwrite=overwrite, progress=progress)
    return card
