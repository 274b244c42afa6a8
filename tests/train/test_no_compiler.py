"""A start on a CPU compiles nothing: DeepSpeed's extensions take minutes, and a killed run leaves
their compiler and a lock behind."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.support.runs import Run

COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "ninja", "nvcc")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU may need them")
def test_offload_starts_no_compiler(new_run: Callable[..., Run], tmp_path: Path) -> None:
    programs, extensions, started = (tmp_path / name for name in ("bin", "extensions", "started"))
    programs.mkdir()
    for name in COMPILERS:
        program = programs / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {started}\nexit 1\n')
        program.chmod(0o755)
    run = new_run(data={"val_shards": None})
    ranks = run.start(
        "train.steps=1",
        json="ds_configs/zero3_offload.json",
        PATH=f"{programs}:{os.environ['PATH']}",
        TORCH_EXTENSIONS_DIR=str(extensions),
        DS_PIN_MEMORY_BACKEND="native",
    )
    assert ranks.wait() == [0], ranks.output
    assert not started.exists(), started.read_text()
    assert not extensions.exists()
