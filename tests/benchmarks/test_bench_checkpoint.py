import json
from pathlib import Path

from tests.benchmarks.test_bench_train import TINY
from tests.support.ranks import finish


def test_saving_and_loading_are_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ["--deepspeed", "ds_configs/zero3_fp32.json", *TINY, "model.video_layers=1"]
    command = ["benchmark.py", "checkpoint", *options, "optim.name=adamw", "--folder", tmp_path]
    assert "of them, for a share of" in finish(*command, "--json", figures).stdout()
    found = json.loads(figures.read_text())["checkpoint"]
    assert found["share_bytes"] < found["load_bytes"] < 2 * found["share_bytes"]
    assert found["load_files"] == 1
    assert all(value > 0 for value in found.values())
    again = finish(*command, "--load-only", "--json", figures, ranks=2)
    assert json.loads(figures.read_text())["checkpoint"]["load_files"] == 1
    assert "load" in again.stdout()
