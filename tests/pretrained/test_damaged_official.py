"""Whatever a file of the authors' may have become: an export, or one line that says why not."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coordtok.errors import UserError
from coordtok.pretrained.official.convert import ImportOptions, import_official
from tests.support.damaged_tensors import damaged_torch_file, odd_weights

FIXTURES = Path(__file__).parents[1] / "fixtures/official"
FILES = {"tokenizer": "tokenizer.pth", "generator": "generator.pt"}

Write = Callable[[dict[str, Any], Path, random.Random], None]


def damaged(content: dict[str, Any], path: Path, rng: random.Random) -> None:
    path.write_bytes(damaged_torch_file(content, rng))


def odd(content: dict[str, Any], path: Path, rng: random.Random) -> None:
    part = "ema" if "ema" in content else "model"
    torch.save({**content, part: odd_weights(content[part], rng)}, path)


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize("write", [damaged, odd])
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_file_becomes_an_export_or_one_line(
    tmp_path: Path, kind: str, write: Write, seed: int
) -> None:
    rng = random.Random(seed)
    content = torch.load(FIXTURES / FILES[kind], weights_only=False)
    log = FIXTURES / "generator_log.txt" if kind == "generator" else None
    path, out = tmp_path / "file.pth", tmp_path / "out"
    for _ in range(8 if seed == 1 else 200):
        write(content, path, rng)
        try:
            import_official(path, out, ImportOptions(heads=2, log=log))
        except UserError as error:
            message = str(error)
        else:
            shutil.rmtree(out)
            continue
        assert "\n" not in message
        assert not out.exists()
