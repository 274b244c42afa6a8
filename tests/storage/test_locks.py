import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from coordtok.errors import DataError
from coordtok.storage.locks import signature, signed_lock, sole_owner

HOLD = """
import sys, time
from pathlib import Path
from coordtok.storage.locks import signed_lock
with signed_lock(Path(sys.argv[1]), 0.0):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process that holds the lock file."""
    command = [sys.executable, "-c", HOLD, str(path), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "new/folder"
    with (
        sole_owner(folder, "encode.py"),
        pytest.raises(DataError, match=r"another encode\.py is writing"),
        sole_owner(folder, "encode.py"),
    ):
        pass
    with sole_owner(folder, "encode.py"):
        pass


@pytest.mark.parametrize(
    "lock",
    [lambda folder: sole_owner(folder, "encode.py"), lambda folder: signed_lock(folder / "a", 0)],
)
def test_a_lock_is_not_inherited(lock, tmp_path: Path) -> None:
    """Loaders outlive a command that is killed, for seconds."""
    ours, theirs = multiprocessing.Pipe()
    with lock(tmp_path):
        child = multiprocessing.get_context("fork").Process(target=echo, args=(theirs,))
        child.start()
        ours.send("started")
        ours.recv()
    with lock(tmp_path):
        assert child.is_alive()
    ours.send("enough")
    child.join()
    assert child.exitcode == 0


def echo(pipe: Connection) -> None:
    pipe.send(pipe.recv())
    pipe.recv()


def test_an_error_inside_is_not_taken_for_another_owner(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), sole_owner(tmp_path, "encode.py"):
        raise BlockingIOError


def test_what_is_no_folder_has_no_owner(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match=r"cannot use .* as a folder"),
        sole_owner(tmp_path / "file", "encode.py"),
    ):
        pass


def test_a_lock_file_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "owner.lock"
    assert signature(path) == ""
    other = hold(path, 60)
    with pytest.raises(BlockingIOError), signed_lock(path, 0.0):
        pass
    assert signature(path).startswith(f"process {other.pid} on ")
    other.kill()
    other.wait()
    with signed_lock(path, 0.0):
        assert signature(path).startswith(f"process {os.getpid()} on ")
    assert signature(path) == ""


def test_patience_outlasts_a_holder_that_is_about_to_end(tmp_path: Path) -> None:
    path = tmp_path / "owner.lock"
    other = hold(path, 0.5)
    begun = time.monotonic()
    with signed_lock(path, 30):
        assert time.monotonic() - begun < 10
    assert other.wait() == 0
