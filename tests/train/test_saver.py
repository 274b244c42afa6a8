"""Saving: complete or as if never begun, wherever it is interrupted, and no rank waits for one that
cannot write."""

import errno
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

from coordtok import distributed
from coordtok.config.load import load_config
from coordtok.errors import CheckpointError
from coordtok.storage import files
from coordtok.train import saver as saving
from coordtok.train.checkpoint import read_state, read_whole
from coordtok.train.checkpoint_folder import committed
from coordtok.train.engine import build_engine, load_sharding
from coordtok.train.masters import Masters
from coordtok.train.saver import Saver
from tests.support.ranks import ROOT, call
from tests.train.test_elastic import state

WRITING = {"files.py", "manifests.py", "checksums.py", "slice_files.py"}


class Killed(BaseException):
    """No handler runs for it, as after SIGKILL."""


class Interruption:
    """Raises `error` at call `number` of a function of `coordtok.storage` in a thread's life."""

    def __init__(self, number: int, error: BaseException) -> None:
        self.left = number
        self.error = error

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event != "call" or path.parent != Path(files.__file__).parent:
            return
        if path.name in WRITING and frame.f_code.co_name not in ("size", "overlap", "pieces_of"):
            self.left -= 1
            if self.left == 0:
                raise self.error


def test_a_save_interrupted_anywhere_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    call(interrupt_everywhere, tmp_path, ranks=1)


def masters_of_a_tiny_engine() -> Masters:
    distributed.setup()
    run = load_config("quickstart", ["train.global_batch=2", "optim.name=adamw"])
    sharding = load_sharding(str(ROOT / "ds_configs/zero1.json"), run, distributed.world_size())
    return build_engine(lambda: nn.Linear(5, 3), run, sharding)[1]


def set_all(masters: Masters, value: int) -> None:
    for name, shape in masters.shapes.items():
        masters.write(name, torch.full(shape, float(value)))


def interrupt_everywhere(folder: str) -> None:
    masters = masters_of_a_tiny_engine()
    threading.excepthook = lambda args: None
    step = save_and_check(masters, Path(folder), 1, None)
    for error in (OSError(errno.ENOSPC, "No space left on device"), Killed()):
        for number in range(1, 1000):
            interruption = Interruption(number, error)
            step = save_and_check(masters, Path(folder), step + 1, interruption)
            if interruption.left > 0:
                break
        assert 20 < number < 900
    set_all(masters, step)


def save_and_check(masters: Masters, folder: Path, step: int, interruption: Any) -> int:
    """Save `step`, interrupted or not; the newest checkpoint is whole, and of it or of the last."""
    set_all(masters, step)
    before = committed(folder)[:1]
    saver = Saver(folder, masters, None, keep_last=2, background=True)
    threading.setprofile(interruption)
    saver.save(state(step), 0.0)
    threading.setprofile(None)
    saver._thread.join()
    newest = committed(folder)[0]
    saved = read_state(newest).step
    assert [newest] == before or saved == step
    assert interruption is None or interruption.left <= 0 or saved == step
    for value in read_whole(newest).values():
        assert (value == saved).all()
    return step


FAILED = r"^could not write \S*step_00000002: .*No space left on device; the run ends here, [^\n]*$"


def test_a_rank_that_cannot_write_ends_the_save_of_all(tmp_path: Path) -> None:
    call(fail_on_one_rank, tmp_path, ranks=2)


def fail_on_one_rank(folder: str) -> None:
    masters = masters_of_a_tiny_engine()
    saver = Saver(Path(folder), masters, None, keep_last=2, background=True)
    saver.save(state(1), 0.0)
    assert saver.finish()["save_step"] == 1
    if distributed.rank() == 1:
        saving.write_file = full  # type: ignore[assignment]
    saver.save(state(2), 0.0)
    with pytest.raises(CheckpointError, match=FAILED):
        saver.save(state(3), 0.0)
    assert [path.name for path in Path(folder).glob("step_*")] == ["step_00000001"]
    assert saver.finish() == {}
    distributed.barrier()


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
