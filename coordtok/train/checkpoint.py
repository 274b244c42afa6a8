"""Checkpoints: everything that decides the next step, committed at once, checked when read.

    step_00001000/   DeepSpeed's shards, ema_rank_*.safetensors, state.json, and manifest.json once
                     all of them are on disk

A save that fails anywhere leaves the previous checkpoint as it was. A checkpoint of another number
of ranks or ZeRO stage goes through DeepSpeed's universal format on its way in. DeepSpeed's own
files are pickles: load only checkpoints you trust.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine import TorchCheckpointEngine

from coordtok import distributed
from coordtok.config.load import build
from coordtok.errors import CheckpointError, ConfigError, one_line
from coordtok.storage.files import replace_text
from coordtok.storage.json_files import read_json
from coordtok.storage.manifests import FileFacts, measure, write_manifest
from coordtok.train.checkpoint_folder import LATEST, MANIFEST, prune, tag_of
from coordtok.train.ema import EMA

STATE = "state.json"


@dataclass(frozen=True)
class TrainState:
    """What a checkpoint knows beside weights, optimiser and EMA; plain JSON."""

    step: int
    seconds: float
    """Training time so far."""
    loader: dict[str, Any]
    """Position and lane cursors of all ranks."""
    data: list[dict[str, Any]]
    """Path, weight, fingerprint, number of samples and frames per second of each dataset."""
    skipped: int
    """Unreadable samples passed over so far."""
    config: dict[str, Any]
    world_size: int
    zero_stage: int
    precision: str
    forward_check: float
    """Loss of the weights on a fixed batch, compared after loading."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the task fixed when the run began."""


def read_state(checkpoint: Path) -> TrainState:
    try:
        return build(TrainState, read_json(checkpoint / STATE))
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{checkpoint} has no readable {STATE}: {error}") from error


class _Writer(TorchCheckpointEngine):
    """Remembers a failed write instead of raising it: DeepSpeed's `save_checkpoint` is collective,
    and a rank that left it early would hang the others."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None

    def save(self, state_dict: Any, path: str) -> None:
        try:
            torch.save(state_dict, path)
        except (OSError, RuntimeError) as error:
            self.error = self.error or error


def save(folder: Path, engine: Any, ema: EMA | None, state: TrainState, keep_last: int) -> Path:
    """Write and commit the checkpoint of `state.step`, then drop those beyond `keep_last`.

    Raises `CheckpointError` on every rank if any rank could not write; nothing of the attempt
    remains then, and the earlier checkpoints are untouched.
    """
    target = folder / tag_of(state.step)
    distributed.run_on_main(lambda: _make_empty(target))
    error = _write_shards(folder, target, engine, ema)
    if error is None and distributed.is_main():
        error = _attempt(lambda: replace_text(target / STATE, json.dumps(vars(state))))
    _raise_together(error, target)
    error = _commit(folder, target)
    _raise_together(error, target)
    if distributed.is_main():
        prune(folder, target, keep_last)
    return target


def _make_empty(target: Path) -> None:
    try:
        if target.exists():
            shutil.rmtree(target)
        target.mkdir(parents=True)
    except OSError as error:
        raise CheckpointError(f"cannot create {target}: {error.strerror}") from error


def _write_shards(folder: Path, target: Path, engine: Any, ema: EMA | None) -> Exception | None:
    writer = _Writer()
    usual, engine.checkpoint_engine = engine.checkpoint_engine, writer
    try:
        engine.save_checkpoint(str(folder), tag=target.name, save_latest=False)
    finally:
        engine.checkpoint_engine = usual
    if writer.error is None and ema is not None:
        return _attempt(lambda: ema.save(target))
    return writer.error


def _attempt(action: Any) -> Exception | None:
    try:
        action()
    except Exception as error:  # safetensors raises its own type when the disk is full
        return error
    return None


def _commit(folder: Path, target: Path) -> Exception | None:
    """Checksum all files, each rank its share; rank 0 writes the manifest, then `latest`."""
    names = distributed.broadcast(sorted(path.name for path in target.iterdir()))
    own = names[distributed.rank() :: distributed.world_size()]
    facts: dict[str, FileFacts] = {}
    error = _attempt(lambda: facts.update({name: measure(target / name) for name in own}))
    shares = distributed.gather(None if error else facts)
    if error is not None or not distributed.is_main() or None in shares:
        return error
    manifest = {name: fact for share in shares if share for name, fact in share.items()}

    def write() -> None:
        write_manifest(target / MANIFEST, manifest)
        replace_text(folder / LATEST, target.name + "\n")

    return _attempt(write)


def _raise_together(error: Exception | None, target: Path) -> None:
    message = None if error is None else one_line(error)
    found = next(filter(None, distributed.gather(message)), None)
    if found is None:
        return
    if distributed.is_main():
        shutil.rmtree(target, ignore_errors=True)
    raise CheckpointError(
        f"could not write {target}: {found}; earlier checkpoints are intact: make room, then start "
        "again"
    )


def load_engine(engine: Any, checkpoint: Path, convert_in: Path | None) -> None:
    """Weights and optimiser of `checkpoint` into a fresh engine.

    With `convert_in`, a folder of the run's own, rank 0 converts the files there first, and removes
    them afterwards; the engine must have been configured with `checkpoint.load_universal`.
    """
    if convert_in is None:
        engine.load_checkpoint(str(checkpoint.parent), tag=checkpoint.name)
        return
    converted = convert_in / "universal" / checkpoint.name
    try:
        distributed.run_on_main(lambda: _convert(checkpoint, converted))
        engine.load_checkpoint(str(converted.parent), tag=converted.name)
        distributed.barrier()
    finally:
        if distributed.is_main():
            shutil.rmtree(converted.parent, ignore_errors=True)


def _convert(checkpoint: Path, converted: Path) -> None:
    print(f"converting {checkpoint} for this number of ranks", file=sys.stderr)
    shutil.rmtree(converted.parent, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal"]
    command += ["--input_folder", str(checkpoint), "--output_folder", str(converted)]
    command += ["--inject_missing_state"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckpointError(f"could not convert {checkpoint} for another number of ranks: {last}")
