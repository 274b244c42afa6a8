"""Parts of a run that need no run."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch

from coordtok.errors import CheckpointError
from coordtok.evaluation.metrics import psnr
from coordtok.train.run_folder import RunFolder
from coordtok.train.signals import is_launcher


def test_metrics_keep_one_whole_line_a_step(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    lines = [json.dumps({"step": step, "loss": 0.5}) for step in (1, 2, 3)]
    folder.metrics.write_text(
        "\n".join(lines[:2]) + '\n{"step": 2, "val_psnr": 9}\n' + lines[2][:9]
    )
    folder.truncate_metrics(2)
    assert folder.metrics.read_text().splitlines() == [*lines[:2], '{"step": 2, "val_psnr": 9}']
    folder.truncate_metrics(1)
    assert folder.metrics.read_text().splitlines() == lines[:1]


def _own(path: str, owned, release) -> None:
    with RunFolder(path).owned():
        owned.set()
        release.wait()


def test_a_second_run_names_the_owner_of_the_folder(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("coordtok.train.run_folder.PATIENCE_SECONDS", 0.3)
    context = multiprocessing.get_context("spawn")
    owned, release = context.Event(), context.Event()
    other = context.Process(target=_own, args=(str(tmp_path), owned, release))
    other.start()
    assert owned.wait(60)
    with (
        pytest.raises(CheckpointError, match=f"in use by process {other.pid} on .*; stop that run"),
        RunFolder(str(tmp_path)).owned(),
    ):
        pass
    other.kill()
    other.join()
    with RunFolder(str(tmp_path)).owned():
        assert f"process {os.getpid()}" in (tmp_path / "owner.lock").read_text()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot create the run folder"):
        RunFolder(str(tmp_path / "file" / "run")).create()


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/v/bin/python3 /v/bin/deepspeed scripts/train.py", True),
        ("/v/bin/python3 -m deepspeed.launcher.runner --master_port 1 scripts/train.py", True),
        ("/v/bin/python3 -u -m deepspeed.launcher.launch --world_info=x scripts/train.py", True),
        ("/v/bin/python /v/bin/torchrun --nproc-per-node 2 scripts/train.py", True),
        ("python -m torch.distributed.run scripts/train.py", True),
        ("sh -c deepspeed scripts/train.py", False),
        ("make train", False),
        ("-bash", False),
        ("python -m pytest", False),
    ],
)
def test_launchers_are_told_from_shells(command: str, expected: bool) -> None:
    assert is_launcher(command.split()) is expected


def test_psnr_is_the_mean_over_frames_of_clipped_pixels() -> None:
    target = torch.zeros(2, 4, 4, 3)
    predicted = torch.stack([torch.full((4, 4, 3), 0.2), torch.full((4, 4, 3), 5.0)])
    # Squared errors on [0, 1]: 0.1 ** 2 is 20 dB; the second frame is clipped to 1: 0.5 ** 2.
    assert psnr(predicted, target) == pytest.approx((20 + 6.0206) / 2, abs=1e-3)
    assert psnr(target, target) == pytest.approx(100)
