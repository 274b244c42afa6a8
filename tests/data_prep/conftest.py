import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from data_prep.options import BuildOptions

SMALL = {"height": 16, "width": 16, "clip_frames": 8, "clips_per_segment": 2, "gop": 4}


@pytest.fixture(scope="session")
def options():
    """Function that makes options for tiny clips: 8 frames of 16 x 16, segments of 16 frames."""

    def make(input_folder, output, **changed):
        return BuildOptions(str(input_folder), str(output), **{**SMALL, **changed})

    return make


@pytest.fixture(scope="session")
def command_line():
    """Function that turns tiny-clip settings into a command line of build_shards."""

    def make(input_folder, output, *more):
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
        command = [sys.executable, "-m", "data_prep.build_shards"]
        return [*command, "--input", input_folder, "--output", output, *flags, *more]

    return make


@pytest.fixture(scope="session")
def run_build(command_line):
    """Function that builds in a process of its own: .code, .out, .error (lines but progress)."""

    def run(*arguments, before=None):
        command = [os.fspath(part) for part in command_line(*arguments)]
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", preexec_fn=before
        )
        assert "\r" not in done.stderr
        error = [line for line in done.stderr.splitlines() if not re.search(r"\d/\d+ \[", line)]
        return SimpleNamespace(code=done.returncode, out=done.stdout, error=error)

    return run


@pytest.fixture(scope="session")
def some_videos(tmp_path_factory, write_video):
    """Two class folders; videos of 5, 16, 20, 30 and 40 frames, two of them with one base name."""
    root = tmp_path_factory.mktemp("videos")
    for name, frames in [
        ("cats/a.mp4", 40),
        ("cats/b one.mp4", 5),
        ("dogs/a.mp4", 30),
        ("dogs/deep/c.mp4", 20),
        ("dogs/deep/d.mp4", 16),
    ]:
        write_video(root / name, frames, 24, 32)
    return root
