"""Plans: what they add up to, what they refuse, and what they warn about."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from coordtok.config.load import load_config, preset_names, to_dict
from coordtok.errors import ConfigError
from coordtok.scaling.activations import activation_bytes
from coordtok.scaling.collectives import link_bytes, messages
from coordtok.scaling.devices import DEVICES, device_named
from coordtok.scaling.memory import Zero, checkpoint_bytes, rank_memory
from coordtok.scaling.parameters import parameters
from coordtok.scaling.plan import fewest_ranks, lanes_of, make_plan, measured_pace, warnings
from coordtok.scaling.plan_plot import plot_memory
from coordtok.scaling.plan_report import as_dict, describe, side_by_side
from tests.support.ranks import ROOT

H100 = device_named("h100-80g")
ZERO1, ZERO3 = Zero.load("zero1"), Zero.load("zero3")


def planned(name: str, ranks: int = 8, zero: Zero = ZERO1, *overrides: str):  # type: ignore[no-untyped-def]
    return make_plan(load_config(name, overrides), zero, H100, ranks)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_a_plan(name: str) -> None:
    plan = planned(name, 1)
    assert 0 < plan.mfu < 0.7
    assert plan.time.total >= plan.time.device > 0
    assert sum(plan.memory.values()) > 4 * sum(plan.parameters.values())
    text, stored = describe(plan, None), as_dict(plan, None)
    assert json.loads(json.dumps(stored))["run_dir"] in plan.run.run_dir
    assert all(name in text for name in ("parameters", "memory", "update", "whole run"))


def test_stages_shard_what_they_say() -> None:
    run = load_config("tokenizer_l")
    count = sum(parameters(run.model).values())
    memory = {stage: rank_memory(run, replace(ZERO1, stage=stage), 8, 1) for stage in range(4)}
    assert [memory[stage]["weights"] / count for stage in range(4)] == [2, 2, 2, 0.25]
    assert memory[1]["gradients"] == 6 * count, "all of them, in both formats, on each rank"
    assert memory[3]["gradients"] == 4 * count / 8
    assert all(memory[stage]["optimizer"] == 8 * count / 8 for stage in range(1, 4))
    assert memory[0]["optimizer"] == 8 * count, "nothing is sharded under stage 0"
    assert checkpoint_bytes(run) == 12 * count, "it keeps no average"


def test_offloading_moves_bytes_to_the_host() -> None:
    run, offload = load_config("tokenizer_b"), Zero.load("zero3_offload")
    memory = rank_memory(run, offload, 2, 1)
    assert memory["masters"] == memory["optimizer"] == memory["weights"] == 0
    assert (
        make_plan(run, offload, H100, 2).host_memory > 12 * sum(parameters(run.model).values()) / 2
    )


def test_muon_keeps_one_state_of_its_matrices() -> None:
    adamw = load_config("tokenizer_b")
    muon = load_config("tokenizer_b", ["optim.name=muon"])
    ratio = checkpoint_bytes(muon) / checkpoint_bytes(adamw)
    assert 0.69 < ratio < 0.71


def test_weights_travel_once_under_stage_1_and_for_each_pass_under_stage_3() -> None:
    run = load_config("tokenizer_b")
    count = sum(parameters(run.model).values())
    assert link_bytes(run, ZERO1, 1, passes=4) == 0
    assert link_bytes(run, ZERO1, 2, passes=4) == pytest.approx(5 * count, rel=1e-6)
    in_bf16 = replace(ZERO1, sent=2)
    assert link_bytes(run, in_bf16, 2, passes=4) == pytest.approx(3 * count, rel=1e-6)
    sent = messages(run, ZERO3, 2, passes=4)
    assert sent["reduce_scatter_tensor"] == pytest.approx(4 * 4 * count, rel=1e-6)
    assert sent["all_gather_into_tensor"] == pytest.approx(4 * count, rel=0.01)
    twice = messages(run, replace(ZERO3, reuse=0), 2, passes=4)
    assert twice["all_gather_into_tensor"] == pytest.approx(8 * count, rel=0.01)


def test_most_is_held_in_the_backward_pass_or_in_the_update() -> None:
    one, run = (
        load_config("tokenizer_l", ["train.micro_batch=null", f"train.global_batch={batch}"])
        for batch in (1, 256)
    )
    count = sum(parameters(run.model).values())
    small = replace(Zero.load("zero2"), bucket=0)
    few, many = rank_memory(one, small, 1, 1), rank_memory(run, small, 1, 64)
    assert few["update"] == 4 * count, "gradients in float32"
    assert rank_memory(one, small, 1, 1, "cpu")["update"] == 4 * 3 * count
    assert "update" not in many
    assert many["activations"] == 64 * activation_bytes(run, 2)
    assert many["gradients"] == 4 * count, "they add up over micro-batches"
    with_bucket = replace(small, bucket=5e8)
    assert rank_memory(run, with_bucket, 1, 64)["bucket"] == 2 * 5e8, "however small the model is"
    assert "update" not in rank_memory(run, ZERO1, 1, 1), "nothing is made there but in place"


def test_the_largest_micro_batch_fits_and_the_next_does_not() -> None:
    plan = planned("tokenizer_l", 1, ZERO1, "train.global_batch=64", "train.micro_batch=null")
    assert plan.fits
    assert plan.micro_batch == plan.largest_micro_batch
    more = planned("tokenizer_l", 1, ZERO1, "train.global_batch=64", "train.micro_batch=64")
    assert not more.fits
    said = list(warnings(more, 96))
    assert any(f"train.micro_batch={plan.largest_micro_batch} fits" in line for line in said)


def test_what_cannot_work_is_named_with_the_nearest_that_does() -> None:
    with pytest.raises(ConfigError, match="choose 4 ranks"):
        planned("tokenizer_l", 7)
    small = make_plan(load_config("dit_7b"), ZERO1, device_named("rtx-4090"), 8)
    assert any("ZeRO-3 with train.micro_batch=1 fits" in line for line in warnings(small, 96))
    assert any("do not divide the 12 lanes" in line for line in warnings(planned("dit_7b"), 12))
    assert any("hides behind" in line for line in warnings(planned("dit_7b", 64), 64))
    with pytest.raises(ConfigError, match="choose one of"):
        device_named("h1000")
    with pytest.raises(ConfigError, match="name a DeepSpeed JSON"):
        Zero.load("zero9")


def test_as_few_gpus_as_finish_in_time() -> None:
    run = load_config("tokenizer_l")
    plan = fewest_ranks(run, ZERO1, H100, 7.0, None, 1.0)
    assert plan.days <= 7 < make_plan(run, ZERO1, H100, plan.ranks // 2).days
    with pytest.raises(ConfigError, match="the fastest plan takes"):
        fewest_ranks(run, ZERO1, H100, 0.001, None, 1.0)


def test_a_measured_step_sets_the_pace() -> None:
    run = load_config("tokenizer_tiny")
    plain = make_plan(run, ZERO1, H100, 1)
    settings = {"ranks": 1, "sharding": {"bf16": {"enabled": True}}, "run": to_dict(run)}
    result = {"settings": settings, "train": {"step": 3 * plain.time.device}}
    pace = measured_pace(result, H100, "coordtok")
    assert pace == pytest.approx(3)
    slower = make_plan(run, ZERO1, H100, 1, pace=pace)
    assert slower.time.device == pytest.approx(3 * plain.time.device)
    with pytest.raises(ConfigError, match="kind coordtok"):
        measured_pace(result, H100, "dit")
    with pytest.raises(ConfigError, match="on 2 ranks"):
        measured_pace({**result, "settings": {**settings, "ranks": 2}}, H100, "coordtok")
    for wrong in ({}, [], None, {"settings": 1}):
        with pytest.raises(ConfigError, match="names no result"):
            measured_pace(wrong, H100, "coordtok")


def test_lanes_are_those_of_the_index(shards: str) -> None:
    assert lanes_of(load_config("quickstart", [f"data.shards={shards}"])) == 4
    assert lanes_of(load_config("quickstart", ["data.shards=nowhere"])) is None


def test_the_command_needs_no_torch_and_puts_plans_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "plans.json"
    arguments = ["plan", "--config", "tokenizer_b", "tokenizer_l", "--gpus", "8", "64"]
    code = (
        "import sys; sys.path.insert(0, 'scripts'); import scaling; code = scaling.main(); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    command = [sys.executable, "-c", code, *arguments, "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plans = json.loads(path.read_text())
    assert [(plan["run_dir"], plan["gpus"]) for plan in plans] == [
        (f"runs/tokenizer_{size}", gpus) for size in "bl" for gpus in (8, 64)
    ]
    assert len(done.stdout.splitlines()) == 5


def test_memory_is_drawn(tmp_path: Path) -> None:
    plot_memory([planned("tokenizer_b"), planned("dit_7b", 8, ZERO3)], tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ConfigError, match="cannot be written"):
        plot_memory([planned("tokenizer_b")], tmp_path / "no" / "memory.png")


def test_the_catalogue_says_where_its_numbers_are_from() -> None:
    assert all(device.source and device.bf16 > 0 < device.bandwidth for device in DEVICES.values())
    assert side_by_side([planned("dit_l")]).count("\n") == 2
