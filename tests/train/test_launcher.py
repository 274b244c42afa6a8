"""Runs under the real `deepspeed` launcher, and without a compiler."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.ranks import ROOT, free_port
from tests.support.runs import FP32, STOPPED, Run, wait_for_step

NewRun = Callable[..., Run]
BIN = Path(sys.executable).parent
ENDLESS = "train.steps=100000"


def launch(run: Run, *arguments: str) -> subprocess.Popen[str]:
    """Two ranks under `deepspeed`, in a process group of their own."""
    command = [str(BIN / "deepspeed"), "--num_gpus", "2", "--master_port", str(free_port())]
    command += ["scripts/train.py", "--deepspeed", str(FP32), "--config", str(run.config)]
    return subprocess.Popen(
        [*command, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def tree(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Node launcher, ranks and loader workers under the `deepspeed` command, parents first."""
    return psutil.Process(process.pid).children(recursive=True)


def all_end(processes: list[psutil.Process], seconds: float) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_ranks_end_with_their_launcher_and_the_run_goes_on(new_run: NewRun, number: int) -> None:
    run = new_run(data={"workers": 1}, train={"save_every": 2})
    launched = launch(run, ENDLESS)
    wait_for_step(run, 5)
    family = tree(launched)
    assert len(family) >= 5  # the node's launcher, two ranks, their workers
    launched.send_signal(number)
    assert all_end(family, seconds=30)
    last = max(run.losses())
    run(f"train.steps={last + 2}", ranks=2)
    assert list(run.losses()) == list(range(1, last + 3))


def test_sigterm_to_the_launcher_of_a_node_saves(new_run: NewRun) -> None:
    run = new_run()
    launched = launch(run, ENDLESS)
    wait_for_step(run, 3)
    node_launcher, *ranks = tree(launched)
    node_launcher.send_signal(signal.SIGTERM)
    output = launched.communicate(timeout=900)[0]
    assert all_end(ranks, seconds=30)
    step = max(run.losses())
    assert f"asked to stop: saved step {step} of 100000" in output
    assert (run.folder / f"checkpoints/step_{step:08d}/manifest.json").exists()


@pytest.mark.slow
def test_the_launcher_returns_what_a_stopped_run_does(new_run: NewRun) -> None:
    run = new_run()
    launched = launch(run, ENDLESS)
    wait_for_step(run, 1)
    _, *ranks = tree(launched)
    ranks[0].send_signal(signal.SIGUSR1)
    output = launched.communicate(timeout=900)[0]
    assert launched.returncode == STOPPED, output
    step = max(run.losses())
    assert f"checkpoint  {run.folder}/checkpoints/step_{step:08d}" in output


def test_two_runs_cannot_share_a_folder(new_run: NewRun) -> None:
    run = new_run()
    first = run.start(ENDLESS)
    wait_for_step(run, 1)
    output = run(code=2)
    assert f"{run.folder} is in use by process {first.processes[0].pid}" in output
    assert "Traceback" not in output
    first.signal(signal.SIGTERM)
    assert first.wait() == [STOPPED]


def test_no_compiler_is_started(new_run: NewRun, tmp_path: Path) -> None:
    """DeepSpeed's extensions take minutes, and a killed run leaves their compiler and a lock."""
    compilers, extensions, notes = (tmp_path / name for name in ("bin", "extensions", "notes"))
    compilers.mkdir()
    for name in ("cc", "c++", "gcc", "g++", "ninja"):
        (compilers / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {notes}\nexit 1\n')
        (compilers / name).chmod(0o755)
    run = new_run()
    for json in ("zero3.json", "zero3_offload.json"):
        started = run.start(
            "--resume", "auto", f"run_dir={run.folder}/{json}", json=f"ds_configs/{json}",
            PATH=f"{compilers}:{BIN}",
            TORCH_EXTENSIONS_DIR=str(extensions), DS_PIN_MEMORY_BACKEND="native", fresh=True,
        )  # fmt: skip
        assert started.wait() == [0], started.output
        assert "Traceback" not in started.output
        assert not notes.exists(), notes.read_text()
        assert not extensions.exists()


def test_a_wandb_run_without_a_login_is_offline_and_never_waits(new_run: NewRun) -> None:
    pytest.importorskip("wandb")
    run = new_run(wandb={"mode": "online"})
    started = run.start(WANDB_API_KEY="", NETRC="/none", HOME=str(run.folder.parent))
    assert started.wait() == [0], started.output
    assert "no wandb login; wandb runs offline" in started.output
    assert list((run.folder / "wandb").glob("offline-run-*"))
    assert len(run.losses()) == 6
