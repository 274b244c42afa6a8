"""Which model it is, in 64 characters: latents carry it, so that no other is used with them."""

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from coordtok.config.load import to_dict
from coordtok.pretrained.card import read_card
from coordtok.pretrained.hub import local_export
from coordtok.pretrained.read import open_weights


def fingerprint(folder: str | Path) -> str:
    """sha256 of an export's model section and of its weights, as they are stored; `folder` may be a
    Hub id, as for `from_pretrained`.

    The same for every export of the same weights in the same dtype, wherever it lies, whatever
    wrote it and whatever else its card says. Weights are read one at a time.

    Raises:
        CheckpointError: no export, or a damaged one.
    """
    folder = local_export(folder)
    card = read_card(folder)
    digest = hashlib.sha256(json.dumps(_changed(card.model), sort_keys=True).encode())
    with open_weights(folder) as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            described = [name, str(tensor.dtype), list(tensor.shape)]
            digest.update(json.dumps(described).encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _changed(model: Any) -> dict[str, Any]:
    """What differs from the defaults: a key that a later version adds changes no fingerprint."""
    defaults = {field.name: field.default for field in fields(model)}
    kept = {name for name, default in defaults.items() if getattr(model, name) != default}
    stored = to_dict(model)
    return {"name": model.name, **{name: stored[name] for name in sorted(kept)}}
