"""Builds that are killed, interrupted, run twice at once, or run out of room."""

import os
import resource
import signal
import subprocess
import time

import psutil
import pytest

from coordtok.errors import DataError
from data_prep.build_shards import build
from data_prep.options import RunOptions

LOCAL = RunOptions(workers=2, distributor="local", ray_address=None)


def shard_bytes(folder):
    paths = [*folder.glob("*.tar"), folder / "index.json", folder / "failures.jsonl"]
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def many_videos(tmp_path_factory, write_video):
    root = tmp_path_factory.mktemp("many")
    for number in range(8):
        write_video(root / f"{number:02d}.mp4", 30 + number, 120, 160)
    (root / "broken.mp4").write_text("no video")
    return root


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory, many_videos, options):
    folder = tmp_path_factory.mktemp("whole") / "out"
    build(options(many_videos, folder), LOCAL)
    return shard_bytes(folder)


def start(command_line, *arguments):
    command = [os.fspath(part) for part in command_line(*arguments)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_until(holds, seconds=30):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.005)


def finished_videos(folder):
    return sum(1 for path in folder.glob(".work/videos/*/*") if not path.name.endswith(".part"))


def test_killed_at_any_moment_it_goes_on(tmp_path, command_line, many_videos, never_killed):
    out = tmp_path / "out"
    for videos in (0, 2, 5, 9):
        process = start(command_line, many_videos, out, "--workers", "2")
        wait_until(lambda: finished_videos(out) >= videos or process.poll() is not None)  # noqa: B023
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        assert not psutil.wait_procs(workers, timeout=10)[1], "workers outlive their parent"
        for path in out.glob("*.tar"):
            assert path.read_bytes() == never_killed[path.name]
        if (out / "build.json").exists():
            (out / f"shard-000000.tar.{process.pid}.part").write_bytes(b"half")
    assert start(command_line, many_videos, out).wait() == 0
    assert shard_bytes(out) == never_killed
    assert {path.name for path in out.iterdir()} == {*never_killed, "build.json"}


def test_what_is_finished_is_not_done_again(tmp_path, command_line, many_videos):
    out = tmp_path / "out"
    process = start(command_line, many_videos, out)
    wait_until(lambda: finished_videos(out) >= 3)
    process.kill()
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in out.glob(".work/videos/*/*")}
    process = start(command_line, many_videos, out)
    wait_until(lambda: finished_videos(out) > len(before))
    process.kill()
    process.wait()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def hear_ctrl_c() -> None:
    """What a shell starts in the background ignores SIGINT, and so would all below it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("with_group", [True, False])
def test_ctrl_c_ends_everything_and_says_how_to_go_on(
    tmp_path, command_line, many_videos, with_group
):
    command = [os.fspath(part) for part in command_line(many_videos, tmp_path / "out")]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=hear_ctrl_c
    )
    wait_until(lambda: finished_videos(tmp_path / "out") >= 1)
    workers = psutil.Process(process.pid).children(recursive=True)
    if with_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 130
    assert "run the same command again" in error
    assert "Traceback" not in error
    assert not psutil.wait_procs(workers, timeout=10)[1]


def test_two_builds_do_not_share_a_folder(tmp_path, command_line, many_videos, options):
    process = start(command_line, many_videos, tmp_path / "out")
    wait_until(lambda: finished_videos(tmp_path / "out") >= 1)
    with pytest.raises(DataError, match="another build"):
        build(options(many_videos, tmp_path / "out"), LOCAL)
    process.kill()
    process.wait()


def test_changed_videos_are_noticed(tmp_path, options, write_video):
    write_video(tmp_path / "in/a.mp4", 20)
    with pytest.raises(DataError):  # leaves the folder begun: no video is long enough
        build(options(tmp_path / "in", tmp_path / "out", min_frames=99), LOCAL)
    write_video(tmp_path / "in/b.mp4", 20)
    with pytest.raises(DataError, match="changed"):
        build(options(tmp_path / "in", tmp_path / "out", min_frames=99), LOCAL)


@pytest.mark.parametrize("limit", [1000, 12_000])
def test_no_room_is_one_line_and_nothing_half_written(tmp_path, run_build, many_videos, limit):
    """1000 bytes stop the segments, 12 kB only the shards, which are larger."""
    out = tmp_path / "out"
    made = ("--lanes", "1", "--workers", "2")

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = run_build(many_videos, out, *made, before=limited)
    assert done.code == 2
    (line,) = done.error
    assert line.startswith("error: cannot write")
    assert not list(out.glob("*.tar"))
    assert not (out / "index.json").exists()
    assert run_build(many_videos, out, *made).code == 0
