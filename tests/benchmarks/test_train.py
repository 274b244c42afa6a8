import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from coordtok.benchmarks.communication import covered
from coordtok.benchmarks.train import PHASES, Clock, Timed

ROOT = Path(__file__).parents[2]
TINY = [
    "model.frames=8", "model.height=32", "model.width=32", "model.video_patch=[4,8,8]",
    "model.plane_size=[4,4,4]", "model.plane_patch=[2,2,2]", "model.dim=24", "model.heads=2",
    "model.plane_layers=1", "model.decoder_layers=1", "train.points=16", "train.global_batch=4",
    "data.workers=0",
]  # fmt: skip


def start(*arguments: str, ranks: int = 1) -> list[subprocess.Popen[str]]:
    """`scripts/benchmark.py` on some ranks, as the deepspeed launcher starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    base = {
        **os.environ, "OMP_NUM_THREADS": "1", "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "scripts/benchmark.py", f"--local_rank={rank}", *arguments],
            cwd=ROOT,
            env={**base, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


def finish(processes: list[subprocess.Popen[str]], code: int = 0) -> tuple[str, str]:
    """Output and errors of rank 0."""
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), outputs
    return outputs[0]


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_training_is_measured_in_full(tmp_path: Path, ranks: int) -> None:
    path = tmp_path / "figures.json"
    options = ["--deepspeed", "ds_configs/zero3_fp32.json", "model.video_layers=1", "--steps", "2"]
    output, _ = finish(start("train", *options, "--json", str(path), *TINY, ranks=ranks))
    assert "clips/s, peak memory" in output
    figures = json.loads(path.read_text())
    assert figures["command"] == "train"
    assert {"cpu", "cores", "torch", "devices"} <= set(figures["machine"])
    measured = figures["train"]
    for name in (*PHASES, "step", "clips_per_s", "peak_bytes"):
        assert measured[name] > 0, name
    assert (measured["communication"] > 0) or ranks == 1
    assert figures["settings"]["ranks"] == ranks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--deepspeed", "none.json"], "cannot read the DeepSpeed JSON none.json"),
        (["train", "--deepspeed", "none.json", "--steps", "0"], "--steps 0: it must be"),
        (["train", "--deepspeed", "x", "data.shards=/nowhere", "--json", "/"], "--json / cannot"),
        (["loader", "--clips", "0"], "--clips 0: it must be at least 1"),
        (["loader", "--work-folder", "/nowhere"], "--work-folder /nowhere is no folder"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    _, errors = finish(start(*arguments), code=2)
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in errors


def test_shards_that_are_asked_for_are_read(tmp_path: Path) -> None:
    options = ["--deepspeed", "ds_configs/zero3_fp32.json", f"data.shards={tmp_path / 'none'}"]
    _, errors = finish(start("train", *options, *TINY), code=2)
    assert "none does not exist; build shards there" in errors


def test_help_needs_no_library() -> None:
    for command, told in (("loader", "--clips"), ("train", "--deepspeed")):
        output, _ = finish(start(command, "--help"))
        assert told in output
        assert "--json" in output


def test_time_in_collectives_is_counted_once() -> None:
    assert covered([]) == 0
    assert covered([(5, 7), (0, 2), (1, 3), (1, 2)]) == 5


def test_named_methods_count_as_their_phase() -> None:
    clock = Clock()
    timed = Timed([2, 1], clock, {"sort": "data"})
    timed.append(3)
    assert set(clock.take().values()) == {0.0}
    timed.sort()
    taken = clock.take()
    assert taken["data"] > 0
    assert taken["forward"] == 0
    assert set(clock.take().values()) == {0.0}
