"""The check of a GPU, where there is none."""

import json
from pathlib import Path

import pytest
import torch

from tests.gpu import check
from tests.gpu.record import Record, read_lines


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_run(tmp_path: Path) -> None:
    assert check.main(["--output", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["verdict"], results["parts"]) == ("not run", {})
    assert results["machine"]["gpu"] is False


def test_a_part_that_is_cut_off_leaves_what_it_found(tmp_path: Path) -> None:
    record = Record(tmp_path / "part.jsonl")
    record.near("losses", [1.0, 2.02], [1.0, 2.0], bound=1e-3)
    record.near("others", [1.0, 2.0], [1.0, 2.0], bound=0.0)
    record.near("no numbers", [float("nan")], [1.0], bound=1.0)
    with (tmp_path / "part.jsonl").open("a") as file:
        file.write('{"check": "cut o')
    found = {line["check"]: line["ok"] for line in read_lines(tmp_path / "part.jsonl")}
    assert found == {"losses": False, "others": True, "no numbers": False}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_check_can_be_rehearsed(tmp_path: Path) -> None:
    arguments = ["--rehearse", "--compiler", "aot_eager", "--seconds", "3000"]
    code = check.main([*arguments, "--output", str(tmp_path)])
    assert code == 0, (tmp_path / "log.txt").read_text()
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["verdict"] == "passed"
    assert set(results["parts"]) == {
        part.name for part in (*check.FIRST, *check.TOGETHER, *check.ALONE)
    }
