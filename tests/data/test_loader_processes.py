"""Loaders with real worker processes: the same sequence, signals, errors, and no orphans."""

import errno
import gc
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from coordtok.cli import exit_on_user_error, leave
from coordtok.data import workers as data_workers
from coordtok.data.loader import TrainLoader
from coordtok.data.sample import Item, SampleId
from coordtok.data.sequence import LoaderState
from coordtok.data.shards import open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.data.workers import read_ahead
from coordtok.errors import DataError
from tests.support.ranks import start_call

READ = VideoWindows(frames=4, height=2, width=4)

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

# A training process that prints its workers, then a batch each time that it is told to go on.
PROGRAM = """
import multiprocessing
import signal
import sys
from coordtok.data.loader import TrainLoader
from coordtok.data.shards import open_shards
from coordtok.data.video_reader import VideoWindows

for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
    signal.signal(number, lambda *_: None)
loader = TrainLoader(
    [open_shards(sys.argv[1])], VideoWindows(4, 2, 4), seed=0, rank=0, world_size=1,
    micro_batch=2, workers=2, prefetch=2, shuffle_block=3,
)
batches = iter(loader)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
for line in sys.stdin:
    batch, state = next(batches)
    print(state.position, *(sample.key for sample in batch.ids), flush=True)
"""


@pytest.fixture
def folder(write_shards, tmp_path) -> Path:
    return write_shards(tmp_path / "shards", (5, 4, 3, 6, 5, 5, 5, 5), 4, damaged=["s001-002"])


def loader(folder, rank=0, ranks=1, micro_batch=1, workers=0, state=None, **options) -> TrainLoader:
    return TrainLoader(
        [open_shards(str(folder))],
        READ,
        seed=0,
        rank=rank,
        world_size=ranks,
        micro_batch=micro_batch,
        workers=workers,
        prefetch=2,
        shuffle_block=3,
        state=state,
        **options,
    )


def take(batches, steps):
    """Copies: what a batch holds must not change when later ones are read."""
    return [
        (batch.ids, batch.data["video"].clone(), batch.skipped, state)
        for batch, state in itertools.islice(batches, steps)
    ]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for (ids, video, skipped, state), (ids_, video_, skipped_, state_) in zip(found, expected):
        assert (ids, skipped, state) == (ids_, skipped_, state_)
        assert torch.equal(video, video_)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_do_not_change_the_sequence_or_its_states(folder, workers):
    expected = take(loader(folder, micro_batch=3), 20)
    assert_same(take(loader(folder, micro_batch=3, workers=workers), 20), expected)


@pytest.mark.parametrize(("before", "after"), [(2, 2), (0, 4), (4, 1), (2, 0)])
@pytest.mark.parametrize("done", [1, 3, 13])
def test_resume_with_other_workers_continues_the_rotation(folder, before, after, done):
    expected = take(loader(folder), done + 10)
    state = take(loader(folder, workers=before), done)[-1][-1]
    assert_same(take(loader(folder, workers=after, state=state), 10), expected[done:])


def test_ranks_and_workers_share_the_sequence_after_a_resume_on_fewer(folder):
    expected = take(loader(folder, micro_batch=4), 14)
    four = [take(loader(folder, rank, 4, workers=1), 7) for rank in range(4)]
    state = LoaderState.merge([taken[-1][-1] for taken in four])
    assert state == expected[6][-1]
    two = [take(loader(folder, rank, 2, 2, 2, state), 7) for rank in range(2)]
    for step in range(7):
        ids = {sample for taken in two for sample in taken[step][0]}
        assert ids == set(expected[7 + step][0])
    assert LoaderState.merge([taken[-1][-1] for taken in two]) == expected[-1][-1]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_does_not_run_ahead_of_what_was_handed_over(folder, workers):
    batches = iter(loader(folder, micro_batch=2, workers=workers))
    _, state = next(batches)
    assert state.position == 2
    assert [cursor.sample > 0 for cursor in state.cursors[0]] == [True, True, False, False]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_data_arrives_as_one_line(write_shards, tmp_path, workers):
    nothing = [f"s001-{sample:03d}" for sample in range(4)]
    folder = write_shards(tmp_path, (4, 4), 2, damaged=nothing)
    with pytest.raises(DataError, match=r"none of the 4 samples in lane 1 of .*s001-00") as error:
        take(loader(folder, workers=workers), 3)
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


def test_the_batches_before_an_error_are_delivered(write_shards, tmp_path):
    nothing = [f"s001-{sample:03d}" for sample in range(4)]
    folder = write_shards(tmp_path, (4, 4), 2, damaged=nothing)
    batches = iter(loader(folder, workers=2))
    batch, _ = next(batches)
    assert batch.ids[0].lane == 0
    with pytest.raises(DataError):
        next(batches)


def read_with(read, workers=1, prefetch=1):
    """Items whose values are what `read(worker)` yields."""

    def series(worker, workers):
        for value in read(worker):
            yield Item({"value": value}, SampleId(0, 0, ""))

    return read_ahead(series, {"value": 0}, workers=workers, prefetch=prefetch)


def value_of(item) -> int:
    return item.values["value"]


@pytest.mark.parametrize("kind", [ZeroDivisionError, RuntimeError])
def test_a_mistake_in_the_code_keeps_its_traceback(kind):
    def read(worker):
        yield worker
        raise kind("a bug")

    items = read_with(read)
    assert value_of(next(items)) == 0
    with pytest.raises(kind, match=r"in read\n(.*\n)*.*a bug"):
        next(items)


def test_a_killed_worker_is_an_error_that_says_so():
    def read(worker):
        yield os.getpid()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(DataError, match=r"a loader process was killed.*lower data.workers"):
        list(read_with(read))


def test_workers_keep_to_one_thread_and_end_with_their_loader():
    def read(worker):
        while True:
            yield torch.get_num_threads(), os.getpid()

    items = read_with(read, workers=2, prefetch=2)
    threads, pids = zip(*(value_of(next(items)) for _ in range(4)))
    assert set(threads) == {1}
    assert len(set(pids)) == 2
    items.close()
    assert not any_runs(pids)


def stuck(worker):
    """A worker's pid, and nothing after that."""
    yield os.getpid()
    time.sleep(1000)


def test_workers_that_are_stuck_do_not_hold_up_the_end(monkeypatch):
    monkeypatch.setattr("coordtok.data.workers._PATIENCE_S", 0.1)
    items = read_with(stuck, workers=2, prefetch=2)
    pids = [value_of(next(items)) for _ in range(2)]
    items.close()
    assert not any(map(is_running, pids))


def test_none_is_left_where_not_all_workers_can_be_started(monkeypatch, capfd):
    forks = []

    def fork():
        if len(forks) == 2:
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        forks.append(real_fork())
        return forks[-1]

    real_fork = os.fork
    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(BlockingIOError):
        next(read_with(stuck, workers=3))
    gc.collect()
    assert not any(map(is_running, forks))
    assert capfd.readouterr().err == ""  # nothing of a __del__ that failed either


def fail(how: str) -> None:
    """A command that ends badly while its workers are stuck, and a traceback holds its loader."""

    data_workers._PATIENCE_S = 0.1

    @exit_on_user_error
    def main() -> None:
        items = read_with(stuck, workers=2, prefetch=2)
        print(*(value_of(next(items)) for _ in range(2)), flush=True)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        kind = {"error": DataError, "bug": ZeroDivisionError, "interrupted": KeyboardInterrupt}[how]
        try:
            raise kind("as asked")
        except BaseException as error:
            held = error  # a cycle: error -> traceback -> this frame -> error
            raise held from None

    leave(main())


@pytest.mark.parametrize(
    ("how", "code"), [("error", 2), ("bug", 1), ("interrupted", 130), ("killed", -signal.SIGKILL)]
)
def test_a_command_that_fails_leaves_no_workers(how, code):
    command = start_call(fail, how)
    assert command.wait(60) == [code], command.output
    pids = [int(pid) for pid in command.stdout().split()]
    assert len(pids) == 2
    assert not (any_runs(pids) if how == "killed" else any(map(is_running, pids)))


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (2, 1), (2, 3)])
def test_an_item_holds_until_the_next_is_asked_for(workers, prefetch):
    """However far ahead the workers have read by then."""

    def series(worker, workers):
        for number in itertools.count(worker, workers):
            yield Item({"array": np.full(5, number)}, SampleId(0, number, ""))

    items = read_ahead(series, {"array": np.zeros(5, int)}, workers=workers, prefetch=prefetch)
    for number in range(12):
        item = next(items)
        time.sleep(0.02)
        assert item.id.epoch == number
        assert item.values["array"].tolist() == [number] * 5
    items.close()


def test_loading_leaves_the_global_generator_alone(folder):
    torch.manual_seed(0)
    take(loader(folder, workers=1), 1)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_workers_outlive_a_signal_to_the_process_group(folder, number):
    with training(folder) as (process, workers):
        os.killpg(process.pid, number)
        expected = take(loader(folder, micro_batch=2), 7)
        for ids, _, _, state in expected[1:]:
            assert go_on(process) == [str(state.position), *(sample.key for sample in ids)]
        assert all(is_running(pid) for pid in workers)
        process.communicate(timeout=30)  # closes its input, so that it ends
        assert process.returncode == 0
        assert not any_runs(workers)


def test_no_orphans_after_the_training_process_is_killed(folder):
    with training(folder) as (process, workers):
        assert all(is_running(pid) for pid in workers)
        process.kill()
        process.wait()
        assert not any_runs(workers)


class training:
    """The program above, and the process ids of its workers."""

    def __init__(self, folder: Path) -> None:
        self.command = [sys.executable, "-c", PROGRAM, str(folder)]

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            start_new_session=True,
        )
        self.workers = [int(pid) for pid in self.process.stdout.readline().split()]
        assert len(self.workers) == 2
        return self.process, self.workers

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def go_on(process) -> list[str]:
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().split()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def any_runs(pids: list[int]) -> bool:
    """Whether any of them still runs after a generous while."""
    deadline = time.monotonic() + 30
    while any(map(is_running, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return any(map(is_running, pids))
