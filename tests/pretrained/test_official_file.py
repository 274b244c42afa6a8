"""Files that are not, or not safely, the authors'."""

import argparse
import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coordtok.errors import CheckpointError
from coordtok.pretrained.official.release_file import load_official, official_kind, tensors_of


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_official(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    path, made = tmp_path / "it's a trap.pth", tmp_path / "made"
    content = {"model": {"module.weight_tokens_xy": Trap(made)}}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert "was not loaded: it wants to call posix.mkdir, and only tensors are taken" in message
    assert "if you trust where it is from" in message
    assert not made.exists()
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Trap(made)))
    refusal(tmp_path / "bare.pth")
    assert not made.exists()


def test_the_way_out_for_files_that_need_more_works(tmp_path: Path) -> None:
    """A checkpoint with a numpy number beside its weights, as older trainers wrote them."""
    path = tmp_path / "it's mine.pth"
    torch.save({"model": {"module.weight_tokens_xy": torch.ones(2)}, "psnr": np.float64(3)}, path)
    message = refusal(path)
    assert "multiarray.scalar" in message
    command = message[message.index(" -c ") : message.index(" and import weights.pth")]
    subprocess.run(shlex.quote(sys.executable) + command, shell=True, check=True, cwd=tmp_path)
    content = load_official(tmp_path / "weights.pth")
    assert official_kind(content, path) == "tokenizer"


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    assert "no such file" in refusal(path)
    torch.save({"model": {"a": torch.randn(1000)}}, path)
    whole = path.read_bytes()
    for data in (b"", b"hello", b"\x80\x02", whole[: len(whole) // 2], whole[:-200]):
        path.write_bytes(data)
        assert "is damaged" in refusal(path)
    torch.save([1], path)
    assert "holds a list, not the authors' layout" in refusal(path)


@pytest.mark.parametrize("content", [{}, {"model": 3}, {"model": {"conv1.weight": torch.ones(1)}}])
def test_files_of_other_models(tmp_path: Path, content: dict) -> None:
    with pytest.raises(CheckpointError, match="neither the authors' tokenizer nor their generator"):
        official_kind(content, tmp_path / "file.pth")


@pytest.mark.parametrize(
    "odd",
    [{3: torch.ones(1)}, {"a": torch.ones(1).long()}, {"a": torch.ones(1).to_sparse()}, {"a": [1]}],
)
def test_weights_that_are_none(tmp_path: Path, odd: dict) -> None:
    with pytest.raises(CheckpointError, match="is no tensor of floats; download it again"):
        tensors_of({"weight_tokens_xy": torch.ones(1), **odd}, tmp_path / "file.pth")


def test_a_generator_is_recognised_and_its_arguments_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "sit.pt"
    weights = {"x_embedder_xy.proj.weight": torch.ones(4, 8, 2, 2)}
    torch.save({"model": weights, "ema": weights, "args": argparse.Namespace(model="SiT")}, path)
    assert official_kind(load_official(path), path) == "generator"
    assert argparse.Namespace not in torch.serialization.get_safe_globals()
