import importlib
import sys

import pytest

from coordtok.errors import ConfigError, DataError
from data_prep.build_shards import build
from data_prep.distributors import Done, LocalProcesses, Progress, make_distributor
from data_prep.options import RunOptions

WORK = """
import os
from coordtok.errors import DataError

def double(task, report):
    report(task)
    return 2 * task

def die_of_three(task, report):
    if task == 3:
        os._exit(11)
    return task

def fail(task, report):
    raise DataError(f"no room for {task}")

def stumble(task, report):
    return 1 / task
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Functions that other processes can import."""
    (tmp_path / "work_for_tests.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "work_for_tests", raising=False)
    return importlib.import_module("work_for_tests")


def test_every_task_is_done_once_and_progress_is_told(work):
    with LocalProcesses(3) as distributor:
        for tasks in ([1, 2, 3, 4, 5], [6], []):
            events = list(distributor.run(work.double, tasks))
            done = [event for event in events if isinstance(event, Done)]
            assert sorted((event.task, event.result) for event in done) == [
                (task, 2 * task) for task in tasks
            ]
            assert sum(e.amount for e in events if isinstance(e, Progress)) == sum(tasks)


def test_a_worker_that_dies_costs_its_own_task_alone(work):
    with LocalProcesses(2) as distributor:
        done = {event.task: event for event in distributor.run(work.die_of_three, range(8))}
        assert done.keys() == set(range(8))
        assert "exit code 11" in done[3].crash
        assert [done[task].result for task in (0, 1, 2, 4, 5, 6, 7)] == [0, 1, 2, 4, 5, 6, 7]


def test_errors_come_through(work):
    with LocalProcesses(2) as distributor, pytest.raises(DataError, match="no room for"):
        list(distributor.run(work.fail, [1, 2]))
    with LocalProcesses(1) as distributor, pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(distributor.run(work.stumble, [0]))


def test_ray_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match="pip install"):
        make_distributor("ray", 2, None)


@pytest.mark.slow
def test_ray_gives_the_same_bytes(tmp_path, some_videos, options):
    pytest.importorskip("ray")
    for name in ("local", "ray"):
        build(options(some_videos, tmp_path / name), RunOptions(2, name, None))
    for path in (tmp_path / "local").glob("*.tar"):
        assert path.read_bytes() == (tmp_path / "ray" / path.name).read_bytes()
    index = (tmp_path / "local/index.json").read_bytes()
    assert index == (tmp_path / "ray/index.json").read_bytes()


@pytest.mark.slow
def test_ray_reports_dead_workers_and_errors(work):
    pytest.importorskip("ray")
    with make_distributor("ray", 2, None) as distributor:
        done = {event.task: event for event in distributor.run(work.die_of_three, [2, 3, 4])}
        assert done[3].crash
        assert done[2].result == 2
        with pytest.raises(DataError, match="no room for"):
            list(distributor.run(work.fail, [1]))
