"""The run folder: who owns it, its config and its metrics.

    runs/NAME/  config.yaml  metrics.jsonl  curves.png  samples/  checkpoints/

One run at a time writes here; `owner.lock` names it. A start that fails leaves no new folder.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from coordtok.errors import CheckpointError
from coordtok.storage.files import remove_partial, replace_text
from coordtok.storage.json_files import parse_json
from coordtok.storage.locks import signature, signed_lock

LOCK = "owner.lock"
PATIENCE_SECONDS = 10
"""The ranks of a run whose launcher was killed let go within this time."""


class RunFolder:
    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.metrics = self.path / "metrics.jsonl"
        self.curves = self.path / "curves.png"
        self.config = self.path / "config.yaml"
        self._begun = False

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
        """Own the folder within the block, or name its owner in a `CheckpointError`. What is made
        for that goes again if the run does not `begin`."""
        folders = (self.samples, self.checkpoints, self.path, *self.path.parents)
        missing = [path for path in (self.path / LOCK, *folders) if not path.exists()]
        self.create()
        with ExitStack() as held:
            try:
                held.enter_context(signed_lock(self.path / LOCK, PATIENCE_SECONDS))
            except BlockingIOError:
                raise CheckpointError(
                    f"{self.path} is in use by {self.owner or 'another process'}; stop that "
                    "run or choose another run_dir"
                ) from None
            except OSError as error:
                raise CheckpointError(
                    f"{self.path} cannot be locked ({error.strerror}); choose a run_dir on a file "
                    "system with locks"
                ) from error
            if not (self.path / LOCK).exists():
                raise CheckpointError(
                    f"the run that had {self.path} did not begin and took it away; start again"
                )
            held.callback(self._remove_unless_begun, missing)
            for folder in (self.path, self.checkpoints, self.samples):
                remove_partial(folder)
            yield

    def _remove_unless_begun(self, made: list[Path]) -> None:
        for path in () if self._begun else made:
            with suppress(OSError):  # it holds something after all
                if path.is_dir():
                    path.rmdir()
                else:
                    path.unlink()

    @property
    def owner(self) -> str:
        """Who holds the folder, in words; empty where rank 0's disk is not this one."""
        return signature(self.path / LOCK)

    def begin(self, step: int, config: str) -> None:
        """Drop what was logged beyond `step`, and save the config this run goes on with."""
        self._begun = True
        try:
            self.truncate_metrics(step)
            replace_text(self.config, config)
        except OSError as error:
            raise CheckpointError(f"cannot write in {self.path}: {error.strerror}") from error

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines beyond `step`, torn ones included, so that each step has one line."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if parse_json(line, any_number=True)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                continue
        replace_text(self.metrics, "".join(kept))
