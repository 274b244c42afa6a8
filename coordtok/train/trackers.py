"""Experiment trackers beside metrics.jsonl: Weights & Biases and TensorBoard.

Neither decides whether training goes on. Both go on with what an earlier start of the run logged.
"""

import sys
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from coordtok.config.load import to_dict
from coordtok.config.schema import RunConfig
from coordtok.errors import ConfigError, one_line
from coordtok.train.run_folder import RunFolder


class Tracker(Protocol):
    name: str

    def log(self, step: int, values: dict[str, Any]) -> None: ...

    def picture(self, step: int, kind: str, path: Path) -> None: ...

    def movie(self, step: int, kind: str, path: Path) -> None: ...

    def close(self) -> None: ...


def check_trackers(run: RunConfig) -> None:
    """Raise a ConfigError if a tracker that `run` asks for is not installed."""
    if run.tensorboard.enabled and find_spec("tensorboard") is None:
        raise ConfigError(
            "tensorboard.enabled is true, but tensorboard is not installed; "
            "pip install 'coordtok[tensorboard]', or set it to false"
        )


def start_trackers(run: RunConfig, folder: RunFolder, first_step: int) -> list[Tracker]:
    """Those that `run` asks for; one that does not start is warned about."""
    wanted: list[Callable[[], Tracker]] = []
    if run.wandb.mode != "disabled":
        wanted.append(lambda: Wandb(run, folder))
    if run.tensorboard.enabled:
        wanted.append(lambda: TensorBoard(folder, first_step))
    trackers = []
    for start in wanted:
        try:
            trackers.append(start())
        except Exception as error:  # a tracker must not decide whether training goes on
            print(f"warning: a tracker is off: {one_line(error)}", file=sys.stderr)
    return trackers


class Wandb:
    name = "wandb"

    def __init__(self, run: RunConfig, folder: RunFolder) -> None:
        """Without a login "online" would stop and ask for one, so it becomes "offline"."""
        import wandb

        self._wandb: Any = wandb
        mode = run.wandb.mode
        if mode == "online" and not wandb.api.api_key:
            print("warning: no wandb login; wandb runs offline (see `wandb sync`)", file=sys.stderr)
            mode = "offline"
        wandb.init(
            project=run.wandb.project,
            name=run.wandb.name or folder.path.name,
            dir=str(folder.path),
            config=to_dict(run),
            mode=mode,
            resume="allow",
            id=_wandb_id(folder),
            settings=wandb.Settings(init_timeout=30, silent=True),
        )

    def log(self, step: int, values: dict[str, Any]) -> None:
        self._wandb.log(values, step=step)  # without a step wandb would take a new one

    def picture(self, step: int, kind: str, path: Path) -> None:
        self.log(step, {kind: self._wandb.Image(str(path), caption=path.stem)})

    def movie(self, step: int, kind: str, path: Path) -> None:
        self.log(step, {kind: self._wandb.Video(str(path), format="mp4")})

    def close(self) -> None:
        self._wandb.finish()


class TensorBoard:
    """Event files in RUN/tensorboard. It shows no mp4 files: those are in samples/."""

    name = "TensorBoard"

    def __init__(self, folder: RunFolder, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        forget = first_step + 1 if first_step else 0  # what was logged from this step on
        self._writer: Any = SummaryWriter(
            str(folder.path / "tensorboard"), purge_step=forget, flush_secs=30
        )

    def log(self, step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def picture(self, step: int, kind: str, path: Path) -> None:
        with Image.open(path) as image:
            self._writer.add_image(kind, np.asarray(image), step, dataformats="HWC")

    def movie(self, step: int, kind: str, path: Path) -> None:
        pass

    def close(self) -> None:
        self._writer.close()


def _wandb_id(folder: RunFolder) -> str:
    """The same wandb run across restarts of the run folder."""
    path = folder.path / "wandb_id"
    if not path.exists():
        path.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
