"""The folder of a run's checkpoints: which of them are complete, and which one a path means.

    checkpoints/step_00001000/   complete once it has its manifest.json
    checkpoints/latest           written last, atomically: the commit point

Resuming, `train.init_from` and exports all find checkpoints here.
"""

import re
import shutil
from contextlib import suppress
from pathlib import Path

from coordtok.errors import CheckpointError
from coordtok.storage.files import replace_text
from coordtok.train.checkpoint_index import MANIFEST

LATEST = "latest"
_TAG = re.compile(r"step_[0-9]{8,}")


def tag_of(step: int) -> str:
    return f"step_{step:08d}"


def committed(folder: Path) -> list[Path]:
    """Complete checkpoints of a run, newest first: those up to `latest` that have a manifest.

    Raises:
        CheckpointError: `latest` is damaged.
    """
    latest = folder / LATEST
    if not latest.is_file():
        return []
    newest = latest.read_text(encoding="utf-8", errors="replace").strip()
    if not _TAG.fullmatch(newest):
        raise CheckpointError(
            f"{latest} is damaged: write the name of the newest whole checkpoint into it, as "
            f"{tag_of(1000)}"
        )
    found = (path for path in folder.glob("step_*") if (path / MANIFEST).is_file())
    return sorted((path for path in found if path.name <= newest), reverse=True)


def find_checkpoint(path: Path) -> Path:
    """The complete checkpoint at `path`, or the newest one of the run there.

    Raises:
        CheckpointError: there is none; its line begins with `path` and ends with what to name.
    """
    fix = "name a run folder or one of its step_* folders"
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such folder; {fix}")
    if (path / "checkpoints").is_dir():
        complete = committed(path / "checkpoints")
        if not complete:
            raise CheckpointError(f"{path}: that run has no complete checkpoint; {fix}")
        return complete[0]
    if not (path / MANIFEST).is_file():
        raise CheckpointError(
            f"{path}: not a complete checkpoint (no {MANIFEST}), but half-written or another "
            f"folder; {fix}"
        )
    return path


def rewind(folder: Path, checkpoint: Path) -> None:
    """Make `checkpoint` the newest of its run: what was saved after it is of another history."""
    replace_text(folder / LATEST, checkpoint.name + "\n")
    for path in folder.glob("step_*"):
        if path.name > checkpoint.name:
            (path / MANIFEST).unlink(missing_ok=True)


def prune(folder: Path, newest: Path, keep_last: int) -> None:
    """Drop all but the `keep_last` newest complete checkpoints, and what unfinished saves left."""
    kept = committed(folder)[: keep_last or None]
    for path in folder.glob("step_*"):
        if path.name < newest.name and path not in kept:
            with suppress(OSError):
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path)
