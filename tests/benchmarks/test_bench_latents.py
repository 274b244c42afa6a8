import json
from pathlib import Path

import pytest
import yaml

from coordtok.benchmarks.bench_latents import PARTS, SIDES, _turns
from tests.support.ranks import finish
from tests.support.runs import TINY

SMALL = [
    "model.plane_size=[4,4,4]", "model.dim=16", "model.heads=2", "model.layers=1",
    "train.global_batch=4",
]  # fmt: skip
SHARDING = ["--deepspeed", "ds_configs/zero3_fp32.json"]


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 1)])
def test_both_sides_are_measured_in_full(tmp_path: Path, ranks: int, workers: int) -> None:
    tokenizer, path = tmp_path / "tokenizer.yaml", tmp_path / "figures.json"
    config = {"run_dir": "run", "data": {"shards": "none"}, "train": TINY["train"]}
    tokenizer.write_text(yaml.safe_dump({**config, "model": TINY["model"]}))
    options = [*SHARDING, "--tokenizer-config", str(tokenizer), "--steps", "2"]
    options += ["--json", str(path), f"data.workers={workers}", *SMALL]
    output = finish("benchmark.py", "latents", *options, ranks=ranks).stdout()
    stored = json.loads(path.read_text())
    assert stored["command"] == "latents"
    assert stored["settings"]["ranks"] == ranks
    figures = stored["latents"]
    for side in SIDES:
        found = figures[side]
        assert len(found["ms_of_each_step"]) == 2
        assert found["step_ms"] > found["batch_ms"] >= found["read_ms"] > 0
        assert found["step_ms"] == pytest.approx(found["batch_ms"] + found["update_ms"])
    assert figures["latents"]["encode_ms"] == 0 < figures["video"]["encode_ms"]
    for part in ("step", "batch"):
        ratio = figures["video"][f"{part}_ms"] / figures["latents"][f"{part}_ms"]
        assert figures[f"{part}_ratio"] == pytest.approx(ratio)
    assert all(name in output for name in (*PARTS.values(), *SIDES.values()))
    assert f"{figures['step_ratio']:.1f} times as long" in output


def test_sides_take_turns_of_equal_length() -> None:
    turns = list(_turns(7, settling=1))
    sides = [side for side, _ in turns]
    assert sides == 6 * ["latents"] + 6 * ["video"] + 3 * ["latents"] + 3 * ["video"]
    for side in SIDES:
        assert turns.count((side, True)) == 7
    assert [counts for _, counts in turns[:7]] == [False, *5 * [True], False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "--steps 0: it must be at least 1"),
        (["--config", "tokenizer_tiny"], "a generator is wanted, but model.name is 'coordtok'"),
    ],
)
def test_mistakes_are_one_line(options: list[str], message: str) -> None:
    errors = finish("benchmark.py", "latents", *SHARDING, *options, code=2).stderr()
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in errors
