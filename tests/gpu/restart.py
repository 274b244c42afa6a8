"""Whether a run that is killed goes on as if it had not been."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from tests.gpu.record import Record, read_lines
from tests.gpu.sizes import Sizes
from tests.support.ranks import ROOT, free_port
from tests.support.runs import TINY, write_shards

BOUND = 3e-2
"""Largest relative difference of a loss where kernels may add in any order."""


@dataclass
class Way:
    """How a run is made."""

    name: str
    overrides: tuple[str, ...]
    exact: bool


def restart(work: Path, record: Record, sizes: Sizes) -> None:
    """A run to its end beside one that is killed after a checkpoint and started again."""
    steps, every = (12, 4) if sizes.rehearse else (150, 10)
    shards = write_shards(work / "drift", samples=14, lanes=4)
    ways = [Way("deterministic", ("train.deterministic=true",), True)]
    if not sizes.rehearse:
        ways.append(Way("compiled", ("train.compile=true",), False))
    whole, killed = (
        {way.name: Started(work, f"{way.name}_{kind}", shards, steps, every, way) for way in ways}
        for kind in ("whole", "killed")
    )
    for way in ways:
        killed[way.name].kill_after(every + 1)
        record.check(
            f"{way.name}: killed between its first checkpoint and its end",
            every < max(killed[way.name].losses(), default=0) < steps,
            step=max(killed[way.name].losses(), default=0),
        )
        killed[way.name].start()
    for way in ways:
        codes = [each[way.name].wait() for each in (whole, killed)]
        record.check(f"{way.name}: exit codes", codes == [0, 0], codes=codes)
        one, other = (each[way.name].losses() for each in (killed, whole))
        if sorted(one) != sorted(other) or not one:
            record.check(f"{way.name}: every step once", False, steps=[len(one), len(other)])
            continue
        name = f"{way.name}: losses of the killed run and the whole one"
        found, wanted = ([run[step] for step in sorted(one)] for run in (one, other))
        record.near(name, found, wanted, bound=0.0 if way.exact else BOUND)


class Started:
    """A process of scripts/train.py in a folder of its own."""

    def __init__(
        self, work: Path, name: str, shards: str, steps: int, every: int, way: Way
    ) -> None:
        self.folder = work / "runs" / name
        config = {
            **TINY,
            "run_dir": str(self.folder),
            "model": {**TINY["model"], "dim": 128, "heads": 2},
            "train": {**TINY["train"], "steps": steps, "save_every": every, "eval_every": 10**6},
            "data": {"shards": shards, "workers": 0},
        }
        self._config = work / f"{name}.yaml"
        self._config.write_text(yaml.safe_dump(config))
        self._overrides = way.overrides
        self.start()

    def start(self) -> None:
        command = [
            sys.executable, str(ROOT / "scripts/train.py"), "--deepspeed", "zero3", "--config",
            str(self._config), *self._overrides,
        ]  # fmt: skip
        threads = "1" if not torch.cuda.is_available() else "4"
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MASTER_PORT": str(free_port())}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment)

    def kill_after(self, step: int) -> None:
        """Kill it when it has logged so many steps and saved, or has ended."""
        while self._process.poll() is None:
            saved = any((self.folder / "checkpoints").glob("step_*/manifest.json"))
            if saved and max(self.losses(), default=0) >= step:
                break
            time.sleep(0.02)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def wait(self) -> int:
        return self._process.wait()

    def losses(self) -> dict[int, float]:
        lines = read_lines(self.folder / "metrics.jsonl")
        return {line["step"]: line["loss"] for line in lines if "loss" in line}
