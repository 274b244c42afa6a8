import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from coordtok.errors import CheckpointError
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import Origin, TokenizerSettings
from coordtok.pretrained.fingerprint import fingerprint
from coordtok.pretrained.write import write_export
from tests.pretrained.conftest import CARD


def test_it_names_weights_and_model_and_nothing_else(make_export, tokenizer, tmp_path):
    export = make_export()
    first = fingerprint(export)
    assert re.fullmatch(r"[0-9a-f]{64}", first)
    other_card = dataclasses.replace(
        CARD, settings=TokenizerSettings(20), origin=Origin("raw", 41, {"note": "moved"})
    )
    write_export(tmp_path / "again", other_card, tokenizer.state_dict())
    path = tmp_path / "again/model.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt", "by": "another program"})
    assert fingerprint(tmp_path / "again") == first
    assert fingerprint(str(export)) == first


def test_any_weight_changes_it(make_export: Callable[..., Path], tokenizer: CoordTok):
    found = {fingerprint(make_export())}
    for number, (name, tensor) in enumerate(sorted(tokenizer.state_dict().items())[:6]):
        changed = tensor.clone()
        changed.view(-1)[-1] += 1e-3
        found.add(fingerprint(make_export(f"changed{number}", **{name: changed})))
    assert len(found) == 7


def test_model_section_and_dtype_change_it(tokenizer, tmp_path, make_export):
    legacy = dataclasses.replace(CARD, model=dataclasses.replace(CARD.model, legacy_padding=True))
    write_export(tmp_path / "legacy", legacy, tokenizer.state_dict())
    write_export(tmp_path / "bf16", CARD, tokenizer.state_dict(), torch.bfloat16)
    folders = [make_export(), tmp_path / "legacy", tmp_path / "bf16"]
    assert len({fingerprint(folder) for folder in folders}) == 3


def test_bad_exports_are_named(make_export, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        fingerprint(tmp_path / "nowhere")
    export = make_export()
    weights = export / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        fingerprint(export)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        fingerprint(export)
