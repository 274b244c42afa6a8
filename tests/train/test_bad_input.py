"""What a user can get wrong: one line, no traceback, nothing half-written, no hang."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coordtok.video.codec import encode_raw
from tests.support.runs import FRAMES, SIZE, VIDEO, Run, json_of, wait_for_step, write_shards
from tests.support.shards import write_tars

NewRun = Callable[..., Run]


def error_of(output: str) -> str:
    assert "Traceback" not in output, output
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.stepz=1"], "unknown key train.stepz (did you mean train.steps)"),
        (["model.dim=wide"], "model.dim is 'wide'; it must be of type int"),
        (["model.height=36"], "the video is 36 along y, which model.video_patch 8 does not divide"),
        (["train.points=9999"], "train.points is 9999, but a clip has 128 patches"),
        (["train.micro_batch=3"], "is not divisible by 1 ranks x train.micro_batch 3"),
        (["model.height=64"], "holds frames of 32 x 32"),
        (["optim.lr=.inf"], "optim.lr is inf; it must be finite"),
        (["model.dim=98304", "model.decoder_layers=900"], "GB of memory, and"),
        (["data.shards=/nowhere"], "/nowhere"),
        (["--resume", "/nowhere"], "--resume /nowhere: no such folder"),
        (["train.init_from=/nowhere"], "train.init_from=/nowhere: no such folder; name a run"),
    ],
)
def test_a_mistake_is_one_line(new_run: NewRun, arguments: list[str], message: str) -> None:
    run = new_run()
    assert message in error_of(run(*arguments, code=2))
    assert not run.folder.exists()


def test_ranks_that_do_not_divide_the_lanes(new_run: NewRun, tmp_path: Path) -> None:
    shards = write_shards(tmp_path / "three", samples=6, lanes=3)
    run = new_run(data={"shards": shards})
    started = run.start(ranks=2)
    assert started.wait() == [2, 2], started.output
    assert "2 ranks cannot share the data's 3 lanes" in error_of(started.output)


def test_an_unreadable_sample_is_skipped_counted_and_named(new_run: NewRun, tmp_path: Path) -> None:
    shards = Path(write_shards(tmp_path / "shards", samples=8, lanes=2))
    tar_path = shards / "part-000000.tar"
    data = bytearray(tar_path.read_bytes())
    with tarfile.open(tar_path) as tar:
        victim = tar.getmember("clip002.npy")
    data[victim.offset_data] ^= 0xFF  # the magic of the .npy
    tar_path.write_bytes(data)
    run = new_run(data={"shards": str(shards), "val_shards": str(shards), "workers": 1})
    output = run("train.steps=4")
    assert "skipped unreadable sample clip002" in output
    assert "skipped unreadable held-out sample clip002" in output
    assert run.lines("loss")[-1]["skipped"] >= 1
    (validation,) = run.lines("val_psnr")
    assert (validation["val_clips"], validation["val_skipped"]) == (7, 1)


def test_a_lane_with_nothing_readable_ends_all_ranks(new_run: NewRun, tmp_path: Path) -> None:
    shards = Path(write_shards(tmp_path / "shards", samples=8, lanes=2))
    tar_path = shards / "part-000001.tar"
    data = bytearray(tar_path.read_bytes())
    with tarfile.open(tar_path) as tar:
        for member in tar.getmembers():
            data[member.offset_data] ^= 0xFF
    tar_path.write_bytes(data)
    run = new_run(data={"shards": str(shards), "workers": 1})
    started = run.start(ranks=2)
    assert started.wait() == [2, 2], started.output
    assert "lane 1" in error_of(started.output)
    assert not run.folder.exists()


@pytest.mark.slow
def test_held_out_shards_that_change_end_all_ranks_after_saving(
    new_run: NewRun, tmp_path: Path
) -> None:
    shards = Path(write_shards(tmp_path / "val", samples=3, lanes=1))
    run = new_run(data={"val_shards": str(shards)})
    started = run.start("train.steps=9999", "train.eval_every=100", "train.eval_batch=1", ranks=2)
    wait_for_step(run, 1)
    with tarfile.open(shards / "part-000000.tar") as tar:
        victim = tar.getmember("clip001.npy")
    victim.name = "other01.npy"  # as if other shards had come in their place
    with open(shards / "part-000000.tar", "r+b") as file:
        file.seek(victim.offset)
        file.write(victim.tobuf())
    assert started.wait() == [2, 2], started.output
    assert "other01.npy" in error_of(started.output)
    assert (run.folder / "checkpoints/latest").read_text().strip() == "step_00000100"


def test_clips_shorter_than_the_window_train(new_run: NewRun, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    members = [
        (f"clip{number}.npy", encode_raw(rng.integers(0, 256, (frames, SIZE, SIZE, 3), np.uint8)))
        for number, frames in enumerate([1, 2, 5, FRAMES])
    ]
    folder = write_tars(tmp_path / "short", [members], VIDEO)
    run = new_run(data={"shards": str(folder), "val_shards": str(folder)})
    run("train.steps=3", "train.points=20")
    assert all(np.isfinite(loss) for loss in run.losses().values())
    assert run.lines("val_psnr")[-1]["val_clips"] == 4


def test_a_loss_that_is_not_finite_names_the_clips(new_run: NewRun) -> None:
    run = new_run()
    output = run("optim.lr=1e30", "optim.grad_clip=0", "train.steps=50", code=2)
    assert "the loss is not finite at step 2 for clip0" in error_of(output)


DISK = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_full_disk_leaves_the_previous_checkpoint(new_run: NewRun, ranks: int) -> None:
    run = new_run()
    run("train.steps=2", ranks=ranks)
    losses = run.losses()
    limited = run.start("train.steps=4", ranks=ranks, python=["-c", DISK, "60000"])
    codes = limited.wait()
    assert codes == [2] * ranks, limited.output
    assert "could not write" in error_of(limited.output)
    checkpoints = run.folder / "checkpoints"
    assert [path.name for path in checkpoints.glob("step_*")] == ["step_00000002"]
    assert (checkpoints / "latest").read_text().strip() == "step_00000002"
    run("train.steps=4", ranks=ranks)
    assert {step: run.losses()[step] for step in losses} == losses
    assert len(run.losses()) == 4


@pytest.mark.slow
def test_two_ranks_build_the_sample_shards_once(tmp_path: Path) -> None:
    run = Run(tmp_path, tmp_path / "runs/quickstart")
    changes = ["train.steps=2", "optim.schedule=constant"]
    started = run.start(*changes, ranks=2, config="quickstart", cwd=tmp_path)
    assert started.wait() == [0, 0], started.output
    assert len(run.lines("val_psnr")) == 1


def test_weights_start_a_run_from_a_checkpoint_or_a_run(new_run: NewRun, tmp_path: Path) -> None:
    """ZeRO stage and number of ranks may differ: only the weights count."""
    first = new_run("first")
    first("train.steps=3", ranks=2)
    psnr = first.lines("val_psnr")[-1]["val_psnr"]
    for name in ("zero1", "zero3"):
        second = new_run(f"second-{name}", optim={"lr": 1e-12})
        fp32 = json_of(name, tmp_path, bf16=False)
        second("train.steps=1", f"train.init_from={first.folder}", json=fp32)
        assert second.lines("val_psnr")[-1]["val_psnr"] == pytest.approx(psnr, rel=1e-5)
    wrong = new_run("wrong", model={"dim": 32})
    assert "of another model" in error_of(wrong(f"train.init_from={first.folder}", code=2))
