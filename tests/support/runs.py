"""A tiny run, real shards for it, and real processes to run it in."""

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from coordtok.data.index import VideoSpec
from coordtok.train.checkpoint_folder import committed
from coordtok.video.codec import encode_raw
from tests.support.ranks import ROOT, Ranks, start
from tests.support.shards import write_tars

FP32 = ROOT / "ds_configs/zero3_fp32.json"
ENDLESS = 1_000_000
"""Steps that no run of a test reaches."""
STOPPED = 75
"""Exit code of a run that a signal stopped."""
SIZE, FRAMES = 32, 8
VIDEO = VideoSpec(frames=FRAMES, height=SIZE, width=SIZE, fps=None)
TINY = {
    "model": {
        "frames": FRAMES,
        "height": SIZE,
        "width": SIZE,
        "video_patch": [4, 8, 8],
        "plane_size": [4, 4, 4],
        "plane_patch": [2, 2, 2],
        "decoder_patch": [1, 8, 8],
        "dim": 24,
        "heads": 2,
        "video_layers": 1,
        "plane_layers": 1,
        "decoder_layers": 1,
    },
    "train": {
        "steps": 6,
        "global_batch": 4,
        "points": 16,
        "log_every": 1,
        "eval_batch": 2,
        "curves": False,
    },
    "optim": {"lr": 3e-3},
    "ema": {"decay": 0.9},
}


def json_of(name: str, folder: Path, bf16: bool = True) -> Path:
    """The DeepSpeed JSON of that name, in bfloat16 or not where it leaves that to the device."""
    text = (FP32.parent / f"{name}.json").read_text()
    path = folder / f"{name}_{'bf16' if bf16 else 'fp32'}.json"
    path.write_text(text.replace('"enabled": "auto"', f'"enabled": {str(bf16).lower()}'))
    return path


def write_shards(folder: Path, samples: int, lanes: int, seed: int = 0) -> str:
    """Raw shards, one per lane, of noise that drifts: every clip and window differs."""
    rng = np.random.default_rng(seed)
    shards: list[list[tuple[str, bytes]]] = []
    for lane in range(lanes):
        shards.append([])
        for number in range(lane, samples, lanes):
            frames = FRAMES * 2 + number % 3
            still = rng.integers(0, 200, (1, SIZE, SIZE, 3))
            video = (still + 2 * np.arange(frames)[:, None, None, None]).astype(np.uint8)
            shards[-1] += [
                (f"clip{number:03d}.npy", encode_raw(video)),
                (f"clip{number:03d}.json", json.dumps({"frames": frames}).encode()),
            ]
    return str(write_tars(folder, shards, VIDEO, lanes=lanes))


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards") / "train", samples=14, lanes=4)


@pytest.fixture(scope="session")
def val_shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_shards(tmp_path_factory.mktemp("shards") / "val", samples=3, lanes=1, seed=1)


@dataclass
class Run:
    """A tiny run in its own folder, started as often as a test likes."""

    config: Path
    folder: Path
    started: list[Ranks] = field(default_factory=list)

    def start(
        self, *arguments: str, ranks: int = 1, json: str | Path = FP32, config: str = "", **how: Any
    ) -> Ranks:
        """Start `ranks` processes; `how`: see `tests.support.ranks.start`."""
        command = ["--deepspeed", ROOT / json, "--config", config or self.config, *arguments]
        self.started.append(start("train.py", *command, ranks=ranks, **how))
        return self.started[-1]

    def __call__(
        self, *arguments: str, ranks: int = 1, json: str | Path = FP32, code: int = 0
    ) -> str:
        """Run to the end, expect exit `code` of every rank, return what was printed."""
        started = self.start(*arguments, ranks=ranks, json=json)
        codes = started.wait()
        assert codes == [code] * ranks, started.output
        return started.output

    def lines(self, key: str) -> list[dict]:
        """Lines of metrics.jsonl that have `key`."""
        text = (self.folder / "metrics.jsonl").read_text()
        return [line for line in map(json.loads, text.splitlines()) if key in line]

    def losses(self) -> dict[int, float]:
        return {line["step"]: line["loss"] for line in self.lines("loss")}


def make_run(
    parent: Path, name: str, shards: str, val_shards: str, **sections: dict[str, Any]
) -> Run:
    """A run of the tiny model in PARENT/NAME; sections of its config change it."""
    config: dict[str, Any] = {
        "run_dir": str(parent / name),
        **TINY,
        "data": {"shards": shards, "val_shards": val_shards, "workers": 0},
    }
    for section, values in sections.items():
        config[section] = {**config.get(section, {}), **values}
    path = parent / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return Run(path, parent / name)


@pytest.fixture
def new_run(tmp_path: Path, shards: str, val_shards: str) -> Iterator[Callable[..., Run]]:
    """Function (name, **sections) that makes a run of the tiny model; sections change it. What it
    still runs after the test is killed."""
    made: list[Run] = []

    def make(name: str = "run", **sections: dict[str, Any]) -> Run:
        made.append(make_run(tmp_path, name, shards, val_shards, **sections))
        return made[-1]

    yield make
    for run in made:
        for ranks in run.started:
            ranks.signal(signal.SIGKILL)


def wait_for(condition: Callable[[], bool], timeout: float = 600, every: float = 0.1) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the run did not get to work"
        time.sleep(every)


def wait_for_step(run: Run, step: int) -> None:
    """Wait until the run has logged `step`."""
    metrics = run.folder / "metrics.jsonl"
    wait_for(lambda: metrics.exists() and max(run.losses(), default=0) >= step)


def checkpoint_step(run: Run) -> int:
    """The step of the newest checkpoint, 0 without one."""
    found = committed(run.folder / "checkpoints")
    return int(found[0].name.removeprefix("step_")) if found else 0


def saving(run: Run, since: int) -> bool:
    """Whether the run has begun a checkpoint after `since` (time.time_ns) that is not complete."""
    folder = run.folder / "checkpoints"
    unfinished = set(folder.glob("step_*")) - set(committed(folder))
    with suppress(FileNotFoundError):
        return any(path.stat().st_mtime_ns > since for path in unfinished)
    return False


def kill_at_random(run: Run, kills: int, ranks: int, seed: int) -> int:
    """Start `run`, which saves every 5 steps, and kill all its ranks, again and again: in turns
    after it has saved something new, while it saves, while it starts, and before it has saved.
    How many kills found it saving."""
    moments = random.Random(seed)
    found_saving = 0
    for kill in range(kills):
        moment = ("later", "saving", "starting", "soon")[kill % 4]
        started = run.start(f"train.steps={ENDLESS}", ranks=ranks)
        since = time.time_ns()
        if moment == "starting":
            time.sleep(moments.uniform(0, 2))
        else:
            wait_for_step(run, checkpoint_step(run) + (7 if moment == "later" else 1))
            since = time.time_ns()
        if moment == "saving":
            wait_for(lambda since=since: saving(run, since), every=0.001)
            seconds = [0.05, *(line["save_seconds"] for line in run.lines("save_seconds"))]
            time.sleep(moments.uniform(0, seconds[-1]))
        elif moment != "starting":
            time.sleep(moments.uniform(0, 0.5))
        started.signal(signal.SIGKILL)
        started.wait()
        found_saving += moment != "starting" and saving(run, since)
    assert checkpoint_step(run) > 0
    return found_saving


def finish_both(whole: Run, killed: Run, ranks: int) -> int:
    """Train a run that was killed a little further, and one that was not as far; that step."""
    steps = checkpoint_step(killed) + 6
    for run in (killed, whole):
        run(f"train.steps={steps}", ranks=ranks)
    assert [line["step"] for line in killed.lines("loss")] == list(range(1, steps + 1))
    return steps
