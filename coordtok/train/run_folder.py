"""The run folder: who owns it, its config and its metrics.

    runs/NAME/  config.yaml  metrics.jsonl  samples/  checkpoints/

One run at a time writes here. Ownership is a lock of the operating system on `owner.lock`, so that
it ends with its process however that ends; the file's text is for people.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from coordtok.errors import CheckpointError

LOCK = "owner.lock"
PATIENCE_SECONDS = 10
"""The ranks of a run whose launcher was killed let go within this time."""


class RunFolder:
    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.metrics = self.path / "metrics.jsonl"
        self.config = self.path / "config.yaml"

    @property
    def is_used(self) -> bool:
        """Whether an earlier run left metrics or checkpoints here."""
        return self.metrics.exists() or any(self.checkpoints.glob("step_*"))

    def create(self) -> None:
        try:
            for folder in (self.path, self.checkpoints, self.samples):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"cannot create the run folder {self.path}: {error.strerror}"
            ) from error

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Own the folder within the block, or name its owner in a `CheckpointError`."""
        self.create()
        with open(self.path / LOCK, "a+", encoding="utf-8") as lock:
            self._acquire(lock)
            try:
                yield
            finally:
                lock.truncate(0)

    def _acquire(self, lock: Any) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CheckpointError(
                        f"{self.path} is in use by {self.owner or 'another process'}; stop that "
                        "run or choose another run_dir"
                    ) from None
                time.sleep(0.2)
            except OSError as error:
                raise CheckpointError(
                    f"{self.path} cannot be locked ({error.strerror}); choose a run_dir on a file "
                    "system with locks"
                ) from error
        lock.truncate(0)
        since = datetime.now().isoformat(timespec="seconds")
        lock.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        lock.flush()

    def begin(self, step: int, config: str) -> None:
        """Drop what was logged beyond `step`, and save the config this run goes on with."""
        try:
            self.truncate_metrics(step)
            write_atomically(self.config, config)
        except OSError as error:
            raise CheckpointError(f"cannot write in {self.path}: {error.strerror}") from error

    @property
    def owner(self) -> str:
        """Who holds the folder, in words; empty where rank 0's disk is not this one."""
        path = self.path / LOCK
        return path.read_text(encoding="utf-8").strip() if path.exists() else ""

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines beyond `step`, torn ones included, so that each step has one line."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue
        write_atomically(self.metrics, "".join(kept))


def write_atomically(path: Path, text: str) -> None:
    """`path` holds either its old content or all of `text`, whatever happens meanwhile."""
    part = path.with_name(path.name + ".part")
    with open(part, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def append_whole(path: Path, text: str) -> None:
    """Append all of `text`, or leave the file as it was and raise OSError."""
    with open(path, "ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        data = memoryview(text.encode())
        try:
            while data:
                data = data[file.write(data) :]
        except OSError:
            file.truncate(before)
            raise
