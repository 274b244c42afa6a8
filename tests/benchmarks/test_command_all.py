"""All benchmarks by one command: a page of what each printed, and its figures."""

import json
from pathlib import Path

import pytest

from tests.support.ranks import finish


@pytest.mark.slow
def test_a_page_has_what_each_printed_and_what_failed(tmp_path: Path) -> None:
    names = ["sample", "train-generator"]
    finish("benchmark.py", "all", "--output", tmp_path, "--only", *names)
    page = (tmp_path / "performance.md").read_text()
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == names
    assert "| cpu |" in page
    assert "generator" in page.partition("## sample")[2]
    assert "clips/s" in page.partition("## train-generator")[2]
    for name in names:
        assert json.loads((tmp_path / f"{name}.json").read_text())["machine"]["cores"]
    (tmp_path / "sample.json").unlink()
    (tmp_path / "sample.json").mkdir()
    failed = finish("benchmark.py", "all", "--output", tmp_path, "--only", "sample", code=2)
    assert "sample failed" in failed.output
    assert "cannot be written" in failed.output
    assert "failed with exit code 2" in (tmp_path / "performance.md").read_text()


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    said = finish("benchmark.py", "all", "--output", tmp_path, "--only", "nothing", code=2)
    assert "invalid choice: 'nothing'" in said.output
