"""The recipe in training: a fitted linear path, a schedule that ends in a line, a young average."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coordtok.train.checkpoint import MASTER, read_whole
from coordtok.train.export import export_checkpoint
from tests.support.ranks import finish
from tests.support.runs import Run, finish_both, json_of, kill_at_random

NewRun = Callable[..., Run]
RECIPE = {
    "model": {
        "linear_path": True,
        "linear_reach": 1,
        "plane_channels": [8, 3, 2],
        "content_planes": 2,
    },
    "optim": {"schedule": "wsd", "warmup_steps": 2, "decay_steps": 3, "linear_path_rate": 0.1},
    "ema": {"decay": 0.9, "warmup": True},
}
MUON = {**RECIPE["optim"], "name": "muon"}


def test_the_first_step_begins_with_a_codec(new_run: NewRun) -> None:
    """Noise that gets brighter is more than half explained by its brightness."""
    plain, recipe = new_run("plain"), new_run("recipe", **RECIPE)
    plain()
    recipe()
    assert recipe.losses()[1] < 0.5 * plain.losses()[1]


def test_baselines_stand_beside_held_out_scores(
    new_run: NewRun, shards: str, tmp_path: Path
) -> None:
    recipe = new_run("recipe", **RECIPE)
    codec = tmp_path / "codec.safetensors"
    fit = ["--config", recipe.config, "--shards", shards, "--output", codec]
    finish("fit_linear_codec.py", *fit, "--tubelet", 8, 8, 8)
    output = recipe(f"data.linear_codec={codec}")
    (line,) = recipe.lines("val_psnr")
    assert line["val_psnr_mean_frame"] > line["val_psnr"]
    assert f"held-out below the mean frame {line['val_psnr_mean_frame']:.2f}" in output
    assert 8 < line["val_psnr_linear_codec"] < line["val_psnr_mean_frame"]
    output = recipe("data.linear_codec=nowhere", "train.steps=7", code=2)
    assert "nowhere is no linear codec" in output


def test_one_and_two_ranks_train_alike(new_run: NewRun) -> None:
    one, two = new_run("one", **RECIPE), new_run("two", **RECIPE)
    one("train.steps=20")
    two("train.steps=20", ranks=2)
    assert two.losses() == pytest.approx(one.losses(), rel=1e-5)


@pytest.mark.parametrize(
    "name", ["zero3_fp32", *(pytest.param(f"zero{n}", marks=pytest.mark.slow) for n in (1, 2, 3))]
)
def test_resume_is_bit_for_bit(new_run: NewRun, tmp_path: Path, name: str) -> None:
    json = json_of(name, tmp_path)
    run = new_run(train={"save_every": 3, "eval_every": 3}, **RECIPE)
    run(json=json)
    losses, psnrs = run.losses(), run.lines("val_psnr")
    run("--resume", str(run.folder / "checkpoints/step_00000003"), json=json)
    assert run.losses() == losses
    assert run.lines("val_psnr") == psnrs


def test_muon_resumes_bit_for_bit_and_on_other_ranks(new_run: NewRun) -> None:
    run = new_run(train={"save_every": 3}, **{**RECIPE, "optim": MUON})
    run(ranks=2)
    losses = run.losses()
    third = str(run.folder / "checkpoints/step_00000003")
    run("--resume", third, ranks=2)
    assert run.losses() == losses
    output = run("--resume", third, "optim.name=adamw", ranks=2, code=2)
    assert "optim.name is adamw, but the checkpoint has the state of muon" in output
    assert output.count("error:") == 1
    run("--resume", third)
    assert run.losses() == pytest.approx(losses, rel=1e-4)


@pytest.mark.slow
def test_sigkill_at_random_moments_changes_nothing(new_run: NewRun) -> None:
    sections = {**RECIPE, "train": {"save_every": 5, "eval_every": 50, "keep_last": 2}}
    whole, killed = new_run("whole", **sections), new_run("killed", **sections)
    kill_at_random(killed, kills=2, ranks=2, seed=2)
    finish_both(whole, killed, ranks=2)
    assert killed.losses() == whole.losses()


def test_a_linear_path_without_a_rate_stays_as_it_was_fitted(
    new_run: NewRun, tmp_path: Path
) -> None:
    kept = {**RECIPE, "optim": {**RECIPE["optim"], "linear_path_rate": 0.0}}
    run = new_run(train={"save_every": 1, "keep_last": 0}, **kept)
    run(ranks=2)
    first, last = (
        read_whole(run.folder / f"checkpoints/step_0000000{step}", MASTER) for step in (1, 6)
    )
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    linear = {name for name in first if ".linear." in name}
    assert linear
    assert changed == first.keys() - linear


def test_given_weights_are_kept_as_they_are(new_run: NewRun, tmp_path: Path) -> None:
    """`train.init_from` takes the linear path too, instead of fitting one: a first step at almost
    no rate begins where the other run ended."""
    first, second = new_run("first", **RECIPE), new_run("second", **RECIPE)
    first("train.steps=40")
    export_checkpoint(str(first.folder), tmp_path / "export", "raw")
    second(f"train.init_from={tmp_path / 'export'}")
    assert second.losses()[1] < 0.9 * first.losses()[1]
