"""A run that was stopped goes on as if nothing had happened."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coordtok.train.checkpoint import read_whole
from coordtok.train.checkpoint_folder import committed
from tests.support.runs import (
    STOPPED,
    Run,
    finish_both,
    json_of,
    kill_at_random,
    wait_for_step,
)

NewRun = Callable[..., Run]
JSONS = ["zero1", "zero2", "zero3", "zero3_fp32", "zero3_offload"]


@pytest.mark.parametrize("name", JSONS)
def test_every_ds_config_trains_and_resumes_bit_for_bit(
    new_run: NewRun, tmp_path: Path, name: str
) -> None:
    """In bf16 where the JSON allows it, two micro-batches a step."""
    json = json_of(name, tmp_path)
    run = new_run(train={"save_every": 3, "eval_every": 3, "micro_batch": 2})
    run(json=json)
    losses, psnrs = run.losses(), run.lines("val_psnr")
    files = [path for path in (run.folder / "checkpoints").rglob("*") if path.is_file()]
    assert {path.suffix or path.name for path in files} == {".safetensors", ".json", "latest"}
    assert [line["save_step"] for line in run.lines("save_pause")] == [3, 6]
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert losses[6] < losses[1]
    run("--resume", str(run.folder / "checkpoints/step_00000003"), json=json)
    assert run.losses() == losses
    assert run.lines("val_psnr") == psnrs


def test_a_finished_run_says_so_and_a_used_folder_is_refused(new_run: NewRun) -> None:
    run = new_run()
    run("train.steps=2")
    before = (run.folder / "metrics.jsonl").read_text()
    assert "is finished: step 2 of 2" in run("train.steps=2")
    assert "is at step 2, beyond train.steps=1: nothing was done" in run("train.steps=1")
    assert "choose another run_dir" in run("--resume", "none", code=2)
    assert (run.folder / "metrics.jsonl").read_text() == before


def test_ranks_and_workers_do_not_show_in_the_losses(new_run: NewRun) -> None:
    """20 steps of the same run on 1 and on 2 ranks, with 0, 1 and 2 loader workers."""
    settings = [(1, 0), (1, 2), (2, 0), (2, 1), (2, 2)]
    losses = []
    for ranks, workers in settings:
        run = new_run(f"{ranks}-{workers}", data={"workers": workers})
        run("train.steps=20", "train.micro_batch=2", ranks=ranks)
        losses.append(run.losses())
        assert len(losses[-1]) == 20
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize(
    "name",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in ("zero1", "zero2")), "zero3_fp32"],
)
def test_two_ranks_go_on_as_one_and_back(new_run: NewRun, name: str, tmp_path) -> None:
    json = json_of(name, tmp_path, bf16=False)
    whole, moved = new_run("whole"), new_run("moved")
    whole("train.steps=9", ranks=2, json=json)
    moved("train.steps=3", ranks=2, json=json)
    moved("train.steps=6", ranks=1, json=json)
    moved("train.steps=9", ranks=2, json=json)
    assert moved.losses() == pytest.approx(whole.losses(), rel=1e-5)
    found = moved.lines("val_psnr")[-1]["val_psnr"]
    assert found == pytest.approx(whole.lines("val_psnr")[-1]["val_psnr"], rel=1e-5)
    average, expected = (
        read_whole(run.folder / "checkpoints/step_00000009", "ema") for run in (moved, whole)
    )
    assert all(torch.allclose(average[name], expected[name], atol=1e-5) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["zero1", "zero2", "zero3"])
def test_resume_and_ranks_with_every_switch_of_speed_on(new_run: NewRun, name: str, tmp_path):
    """Blocks compiled by torch's default compiler, recomputed in part, micro-batches of two."""
    train = {
        "compile": True,
        "activation_checkpointing": "selective",
        "attention": "sdpa",
        "micro_batch": 2,
    }
    json = json_of(name, tmp_path, bf16=False)
    whole, moved = new_run("whole", train=train), new_run("moved", train=train)
    whole("train.steps=6", "train.save_every=3", json=json)
    losses = whole.losses()
    whole("--resume", str(whole.folder / "checkpoints/step_00000003"), "train.steps=6", json=json)
    assert whole.losses() == losses
    moved("train.steps=2", ranks=2, json=json)
    moved("train.steps=4", ranks=1, json=json)
    moved("train.steps=6", ranks=2, json=json)
    assert moved.losses() == pytest.approx(losses, rel=1e-5)


USR1 = pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)


@pytest.mark.parametrize("number", [signal.SIGTERM, USR1])
def test_a_signal_to_one_rank_saves_on_all(new_run: NewRun, number: int) -> None:
    whole, run = new_run("whole"), new_run("run", data={"workers": 1})
    started = run.start("train.steps=100000", ranks=2)
    wait_for_step(run, 3)
    started.signal(number, ranks=[1])
    assert started.wait() == [STOPPED, STOPPED], started.output
    step = max(run.losses())
    assert f"asked to stop: saved step {step}" in started.output
    run(f"train.steps={step + 2}", ranks=2)
    whole(f"train.steps={step + 2}", ranks=2)
    assert run.losses() == whole.losses()


@pytest.mark.parametrize(("kills", "ranks"), [(2, 1), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments_changes_nothing(new_run: NewRun, kills: int, ranks: int) -> None:
    """As often as one likes: python -m tests.campaign.kills"""
    train, data = {"save_every": 5, "eval_every": 20, "keep_last": 2}, {"workers": 2}
    whole = new_run("whole", train=train, data=data)
    killed = new_run("killed", train=train, data=data)
    kill_at_random(killed, kills, ranks, seed=kills)
    finish_both(whole, killed, ranks)
    assert killed.losses() == whole.losses()
    assert killed.lines("val_psnr") == whole.lines("val_psnr")
    assert len(list((killed.folder / "checkpoints").glob("step_*"))) == 2


def test_resume_from_a_path_rewinds_and_forgets_what_came_after(new_run: NewRun) -> None:
    run = new_run(train={"save_every": 2, "keep_last": 2})
    run()
    first = run.losses()
    checkpoints = run.folder / "checkpoints"
    run("--resume", str(checkpoints / "step_00000004"), "train.steps=5", "train.save_every=5")
    assert [path.name for path in committed(checkpoints)] == ["step_00000005", "step_00000004"]
    run()
    assert run.losses() == first
    other = new_run("other")
    other("train.steps=1")
    assert "is of another run" in run("--resume", str(other.folder), code=2)


@pytest.mark.slow
def test_changed_optimiser_settings_take_effect(new_run: NewRun) -> None:
    same, changed = new_run("same"), new_run("changed")
    for run, weight_decay in ((same, 0.001), (changed, 30.0)):
        run("train.steps=2")
        run("train.steps=4", f"optim.weight_decay={weight_decay}")
    assert same.losses()[3] == changed.losses()[3]
    assert same.losses()[4] != changed.losses()[4]


def test_precision_may_change_and_recomputing_changes_nothing(
    new_run: NewRun, tmp_path: Path
) -> None:
    run, plain = new_run("run"), new_run("plain")
    plain("train.steps=3")
    run("train.steps=2", "train.activation_checkpointing=true")
    run("train.steps=3", "train.activation_checkpointing=selective")
    assert run.losses() == plain.losses()
    run("train.steps=5", json=json_of("zero3", tmp_path))
    run("train.steps=6")
    assert len(run.losses()) == 6


def test_a_precision_left_open_is_that_of_the_device_then_of_the_run(
    new_run: NewRun, tmp_path: Path
) -> None:
    """On a CPU: one that began in bfloat16, as on a GPU, goes on in it, bit for bit."""
    run, open_json = new_run(), "ds_configs/zero3.json"
    assert "float32 (chosen for it)" in run("train.steps=1", json=open_json)
    begun = new_run("begun", train={"save_every": 3})
    begun(json=json_of("zero3", tmp_path))
    losses = begun.losses()
    third = str(begun.folder / "checkpoints/step_00000003")
    output = begun("--resume", third, json=open_json)
    assert "bfloat16 (as before)" in output
    assert begun.losses() == losses


def test_a_damaged_checkpoint_is_named_and_an_older_one_continued(new_run: NewRun) -> None:
    run = new_run(train={"save_every": 2, "keep_last": 0})
    run()
    losses = run.losses()
    newest = run.folder / "checkpoints" / "step_00000006"
    victim = newest / "rank_00000.safetensors"
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    damage = f"{newest} is damaged (the checksum of {victim.name} differs, in ema/"
    assert damage in run("--resume", str(newest), "train.steps=7", code=2)
    output = run("train.steps=7")
    assert damage in output
    assert f"warning: {newest}" in output
    assert list(run.losses().items())[:6] == list(losses.items())


def test_a_half_written_checkpoint_is_never_continued(new_run: NewRun) -> None:
    run = new_run(train={"save_every": 2, "keep_last": 0})
    run("train.steps=4")
    checkpoints = run.folder / "checkpoints"
    shutil.copytree(checkpoints / "step_00000004", checkpoints / "step_00000005")
    (checkpoints / "step_00000005" / "manifest.json").unlink()
    half = str(checkpoints / "step_00000005")
    assert "not a complete checkpoint" in run("--resume", half, code=2)
    run()
    assert list(run.losses()) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.dim=32", "model.dim is 32, but the checkpoint was trained with 24"),
        ("seed=5", "seed is 5, but the checkpoint was trained with 0"),
        ("data.shuffle_block=3", "data.shuffle_block is 3, but the checkpoint's order"),
        ("data.shards={val}", "the data changed since the checkpoint"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    new_run: NewRun, val_shards: str, change: str, message: str
) -> None:
    run = new_run()
    run("train.steps=1")
    output = run(change.format(val=val_shards), code=2)
    assert message in output
    assert "Traceback" not in output


def test_grown_data_needs_a_flag_and_begins_a_new_lane_epoch(
    new_run: NewRun, val_shards: str
) -> None:
    run = new_run()
    run("train.steps=2")
    run("train.steps=4", f"data.shards={val_shards}", "--allow-grown-data")
    state = json.loads((run.folder / "checkpoints/step_00000004/state.json").read_text())
    assert len(run.losses()) == 4
    assert all(epoch >= 1 for (epoch, _, _) in state["loader"]["cursors"][0])
