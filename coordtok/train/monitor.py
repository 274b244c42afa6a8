"""What a run reports: metrics.jsonl always, a progress bar, wandb when asked, pictures.

Only rank 0 reports; on the other ranks every method does nothing. metrics.jsonl is the record: one
JSON object a line, flushed at once. wandb never decides whether training goes on.
"""

import json
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from coordtok import distributed
from coordtok.config.load import to_dict
from coordtok.config.schema import RunConfig
from coordtok.errors import DataError, one_line
from coordtok.progress import ProgressBar
from coordtok.storage.files import append_whole
from coordtok.train.run_folder import RunFolder
from coordtok.video.pictures import write_picture


class Monitor:
    def __init__(self, run: RunConfig, folder: RunFolder) -> None:
        self._run, self._folder = run, folder
        self._active = False
        self._unwritten = ""

    def begin(self, first_step: int) -> None:
        """Report from here on: until then, and on other ranks than 0, nothing is written."""
        self._active = distributed.is_main()
        if not self._active:
            return
        self._bar = ProgressBar(
            total=self._run.train.steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
        )
        online = self._run.wandb.mode != "disabled"
        self._wandb = _start_wandb(self._run, self._folder) if online else None

    def step(self, loss: float, clips_per_s: float) -> None:
        """Advance the progress bar by one step."""
        if self._active:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {clips_per_s:.1f} clips/s", refresh=False)
            self._bar.update()

    def log(self, step: int, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl; a full disk delays it, and does not end the run."""
        if not self._active:
            return
        self._unwritten += json.dumps({"step": step, **values}) + "\n"
        try:
            append_whole(self._folder.metrics, self._unwritten)
            self._unwritten = ""
        except OSError as error:
            self.warn(f"{self._folder.metrics} cannot be written yet: {error.strerror}")
        self._tell_wandb(lambda wandb: wandb.log(values, step=step))

    def say(self, text: str) -> None:
        """A line for people, above the progress bar."""
        if self._active:
            self._bar.write(text, file=sys.stderr)

    def warn(self, text: str) -> None:
        """A line on standard error, from whichever rank has something to say."""
        ProgressBar.write(f"warning: {text}", file=sys.stderr)

    def picture(self, name: str, rows: list[np.ndarray]) -> None:
        """samples/NAME.png: each row (F, H, W, 3) uint8 becomes one line of frames."""
        if not self._active or not rows:
            return
        path = self._folder.samples / f"{name}.png"
        try:
            write_picture(path, rows)
        except DataError as error:
            self.warn(str(error))
            return
        self._tell_wandb(lambda wandb: wandb.log({"samples": _wandb_image(path)}))

    def close(self) -> None:
        if self._active:
            self._bar.close()
            self._tell_wandb(lambda wandb: wandb.finish())

    def _tell_wandb(self, action: Callable[[Any], Any]) -> None:
        if self._wandb is None:
            return
        try:
            action(self._wandb)
        except Exception as error:  # wandb must not decide whether training goes on
            self._wandb = None
            self.warn(f"wandb failed and is off from now on: {one_line(error)}")


def _start_wandb(run: RunConfig, folder: RunFolder) -> Any:
    """A wandb run, or None with a warning: it never keeps a run from training.

    Without a login "online" would stop and ask for one, so it becomes "offline".
    """
    import wandb

    mode = run.wandb.mode
    if mode == "online" and not wandb.api.api_key:
        print("warning: no wandb login; wandb runs offline (see `wandb sync`)", file=sys.stderr)
        mode = "offline"
    try:
        return wandb.init(
            project=run.wandb.project,
            name=run.wandb.name or folder.path.name,
            dir=str(folder.path),
            config=to_dict(run),
            mode=mode,
            resume="allow",
            id=_wandb_id(folder),
            settings=wandb.Settings(init_timeout=30, silent=True),
        )
    except Exception as error:  # wandb must not decide whether training goes on
        print(f"warning: wandb did not start and is off: {error}", file=sys.stderr)
        return None


def _wandb_image(path: Path) -> Any:
    import wandb

    return wandb.Image(str(path), caption=path.stem)


def _wandb_id(folder: RunFolder) -> str:
    """The same wandb run across restarts of the run folder."""
    path = folder.path / "wandb_id"
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
