"""What a run says when it starts, and how to ask before it does."""

from collections.abc import Callable

from coordtok.config.load import build, load_config, parse_yaml
from coordtok.config.schema import RunConfig
from tests.support.ranks import ROOT, finish
from tests.support.runs import Run

NewRun = Callable[..., Run]


def test_a_start_says_what_is_trained_and_a_resume_what_changed(new_run: NewRun) -> None:
    run = new_run()
    output = run("train.steps=2", ranks=2)
    assert f"{run.folder}: a new run\n" in output
    for text in (
        "model     coordtok, 57.6 k parameters: 8 frames of 32 x 32 as 48 tokens, 384 numbers",
        "14 samples, 0.571 epochs",
        "3 clips every 1,000 steps",
        "steps     2, 4 clips each: 8 clips; ",
        "device    CPU, threads a rank: 1, float32",
        "zero3_fp32.json), ranks: 2; of each step's clips a rank takes 1 x 2",
        "weights 0.1, masters 0.1, optimizer 0.2, EMA 0.1, small weights, whole 0.2, "
        "gradients 0.1, bucket 0.2, ",
    ):
        assert text in output, output
    output = run("train.steps=3", "optim.lr=1e-3")
    assert f"{run.folder} goes on from step 2 ({run.folder}/checkpoints/step_00000002)" in output
    changed = "train.steps 2 -> 3, optim.lr 0.003 -> 0.001, ranks 2 -> 1"
    assert f"  changed   {changed}\n" in output


def test_a_check_trains_a_step_and_leaves_nothing(new_run: NewRun) -> None:
    run = new_run()
    output = run("--check", ranks=2)
    assert "checked, and nothing written" in output
    assert "on the first 3 held-out clips" in output
    assert not run.folder.exists()
    run("train.steps=1")
    assert f"one step: loss {run.losses()[1]:.4f}" in output
    files = sorted(run.folder.rglob("*"))
    assert "goes on from step 1" in run("--check")
    assert sorted(run.folder.rglob("*")) == files


def test_the_config_is_printed_and_nothing_else() -> None:
    overrides = ["train.steps=70", "ema.decay=0.5"]
    json = ROOT / "ds_configs/zero3.json"
    how = ["--deepspeed", json, "--config", "quickstart", "--print-config", *overrides]
    printed = finish("train.py", *how, ranks=2)
    assert build(RunConfig, parse_yaml(printed.stdout(0), "")) == load_config(
        "quickstart", overrides
    )
    assert printed.stdout(1) == printed.stderr(0) == printed.stderr(1) == ""
