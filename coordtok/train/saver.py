"""Saving while training goes on.

A save copies what this rank owns to memory of the host; a thread writes the copy and tells rank 0
through the rendezvous store what it wrote. Rank 0's thread waits for the word of every rank, then
writes index, state and manifest, and `latest` last of all. Threads take part in no collective. The
next save and the end of the run wait for the one before.

A save that fails anywhere leaves the earlier checkpoints as they were, and nothing of itself.
"""

import json
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from coordtok import distributed
from coordtok.errors import CheckpointError, UserError, one_line
from coordtok.storage.files import replace_text
from coordtok.storage.slice_layout import file_name
from coordtok.train.checkpoint import TrainState, slices_of, write_facts
from coordtok.train.checkpoint_folder import LATEST, prune, tag_of
from coordtok.train.checkpoint_index import Holding, Index
from coordtok.train.ema import EMA
from coordtok.train.masters import Masters
from coordtok.train.slices import Slice, Slices, write_file


@dataclass
class _Save:
    """One save on its way."""

    target: Path
    state: TrainState
    began: float
    """When training stood still for it."""
    pause: float = 0.0
    """Seconds it stood still."""
    seconds: float = 0.0
    """Until the save was over."""
    error: str | None = None
    """On rank 0: what kept the checkpoint from being complete."""


class Saver:
    """The checkpoints of a run, saved one at a time.

    background: write while training goes on, from a copy in memory; otherwise training waits, and
    there is no copy.
    """

    def __init__(
        self, folder: Path, masters: Masters, ema: EMA | None, keep_last: int, background: bool
    ) -> None:
        self._folder = folder
        self._masters = masters
        self._ema = ema
        self._keep_last = keep_last
        self._background = background
        self._copies: dict[str, dict[str, Slice]] = {}
        self._save: _Save | None = None
        self._thread = threading.Thread()
        self._number = 0

    def save(self, state: TrainState, began: float) -> dict[str, float]:
        """Save the checkpoint of `state.step`; all ranks call it together.

        began: by `time.perf_counter`, when training began to stand still for it. Returns what
        `finish` does of the save before, or of this one where training waits.

        Raises:
            CheckpointError: the save before failed, or there can be no folder for this one.
        """
        figures = self.finish()
        target = self._folder / tag_of(state.step)
        distributed.run_on_main(lambda: _make_empty(target))
        slices = slices_of(self._masters, self._ema)
        counts = self._masters.counts()
        self._save = _Save(target, state, began)
        self._number += 1
        arguments = (self._save, self._copied(slices) if self._background else slices, counts)
        self._thread = threading.Thread(target=self._write, args=arguments, daemon=True)
        self._thread.start()
        self._save.pause = time.perf_counter() - began
        return figures if self._background else self.finish()

    def finish(self) -> dict[str, float]:
        """Wait until the last save is complete; all ranks call it together. What it cost, to log:
        `save_step`, `save_pause` and `save_seconds`; nothing if there was none.

        Raises:
            CheckpointError: on every rank, if any rank could not write.
        """
        if self._save is None:
            return {}
        save, self._save = self._save, None
        waited = time.perf_counter()
        self._thread.join()
        error = distributed.broadcast(save.error)
        if error is not None:
            raise CheckpointError(
                f"could not write {save.target}: {error}; the run ends here, and goes on from the "
                "checkpoint before when it is started again: make room first"
            )
        pause = save.pause + time.perf_counter() - waited
        return {"save_step": save.state.step, "save_pause": pause, "save_seconds": save.seconds}

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let the last save become complete, unless a rank may have died."""
        if self._save is not None and (error is None or isinstance(error, UserError)):
            self._thread.join()

    def _copied(self, slices: Slices) -> Slices:
        """A copy on the host, in the memory of the copy before."""
        cuda = distributed.device().type == "cuda"
        for kind, of_kind in slices.items():
            copies = self._copies.setdefault(kind, {})
            for name, (start, values) in of_kind.items():
                if name not in copies:
                    memory = torch.empty(values.shape, dtype=values.dtype, pin_memory=cuda)
                    copies[name] = Slice(start, memory)
                copies[name].values.copy_(values, non_blocking=True)
        if cuda:
            torch.cuda.synchronize()
        return self._copies

    def _write(
        self, save: _Save, slices: Slices, counts: Mapping[str, Mapping[str, float]]
    ) -> None:
        """This rank's part of a save, in its thread; no rank waits for one that fails."""
        topic = f"save {self._number}"
        distributed.tell(topic, self._write_own(save.target, slices, counts))
        if distributed.is_main():
            try:
                self._commit(save, distributed.hear(topic))
            except Exception as error:
                save.error = one_line(error)
                shutil.rmtree(save.target, ignore_errors=True)
            else:
                prune(self._folder, save.target, self._keep_last)
        save.seconds = time.perf_counter() - save.began

    def _write_own(
        self, target: Path, slices: Slices, counts: Mapping[str, Mapping[str, float]]
    ) -> str:
        """Write this rank's file; what rank 0 is to know of it, in JSON."""
        name = file_name(distributed.rank())
        try:
            return write_file(slices, counts, target / name).to_json()
        except Exception as error:
            return json.dumps({"error": one_line(error)})

    def _commit(self, save: _Save, words: list[str]) -> None:
        """Make the checkpoint complete, when every rank has written its file."""
        errors = [word["error"] for word in map(json.loads, words) if "error" in word]
        if errors:
            raise CheckpointError(errors[0])
        holdings = [Holding.from_json(word) for word in words]
        optimizer = type(self._masters.optimizer).__name__
        index = Index.of(optimizer, self._masters.shapes, holdings)
        write_facts(save.target, index, vars(save.state))
        replace_text(self._folder / LATEST, save.target.name + "\n")


def _make_empty(target: Path) -> None:
    try:
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(f"cannot create {target}: {error.strerror}") from error
