"""What plans say beside what ranks that train find: memory, messages, seconds."""

import json

import pytest
import torch

from coordtok.benchmarks import plan_check
from coordtok.benchmarks.plan_check import Row, Table, check
from tests.support.ranks import start


def test_a_table_holds_by_its_worst_row_or_its_median_one() -> None:
    rows = [Row("a", 101, 100), Row("b", 98, 100, 0.25), Row("c", 150, 100)]
    worst, median = Table("t", "m", 1.0, 0.021, rows), Table("t", "m", 1.0, 0.021, rows, True)
    assert not worst.holds
    assert median.holds
    assert "largest error 50.0 %, at most 2 %: DOES NOT HOLD" in worst.text()
    assert "median error 2.0 %, at most 2 %: holds" in median.text()
    assert "25 %" in worst.text()
    assert Row("nothing is sent", 1, 0).error == 1
    assert json.loads(json.dumps(median.as_dict()))["rows"][2]["error"] == pytest.approx(0.5)


def test_a_table_that_is_not_there_is_named() -> None:
    done = start("scaling.py", "check", "speed")
    assert done.wait() == [2]
    assert "there is no table speed; choose of parameters, flops" in done.stderr()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["memory", "messages"])
def test_ranks_find_what_is_planned(name: str) -> None:
    ((_, table),) = check([name])
    assert table.holds, table.text()
    assert len(table.rows) >= 4


@pytest.mark.slow
def test_updates_are_timed_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of the clock: of the machine's speed a test knows nothing."""
    monkeypatch.setattr(plan_check, "_TURNS", 2)
    kept = [case for case in plan_check.time_cases() if "_s" not in case.config][:3]
    monkeypatch.setattr(plan_check, "time_cases", lambda: kept)
    ((_, table),) = check(["time"])
    assert [row.name for row in table.rows] == [kept[2].name]
    assert all(row.planned > 0 < row.found and row.spread >= 0 for row in table.rows)
    assert torch.tensor([row.error for row in table.rows]).isfinite().all()
