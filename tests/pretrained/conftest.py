from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import Card, Origin, TokenizerSettings
from coordtok.pretrained.write import write_export
from tests.support.tiny import DEEP as CONFIG

CARD = Card(CONFIG, TokenizerSettings(12), Origin("ema", 40, {"data": [{"fps": 25.0}]}))


@pytest.fixture(scope="session")
def tokenizer() -> CoordTok:
    torch.manual_seed(0)
    return CoordTok(CONFIG).eval()


@pytest.fixture
def make_export(tmp_path: Path, tokenizer: CoordTok) -> Callable[..., Path]:
    """Function (name, **changed tensors) that writes an export; None drops a tensor."""

    def make(name: str = "export", **changes: torch.Tensor | None) -> Path:
        weights = {**tokenizer.state_dict(), **changes}
        kept = {key: value for key, value in weights.items() if value is not None}
        write_export(tmp_path / name, CARD, kept)
        return tmp_path / name

    return make
