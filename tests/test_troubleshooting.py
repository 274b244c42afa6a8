"""docs/troubleshooting.md quotes what commands print: its `$` lines are run, and their error lines
compared. Blocks of plain text, of what needs a used run or a full memory, are not."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from coordtok.data.index import VideoSpec
from coordtok.video.codec import encode_raw
from tests.support.ranks import ROOT, start
from tests.support.shards import write_tars

PAGE = (ROOT / "docs/troubleshooting.md").read_text()
QUOTED = [
    pytest.param(command, error, id=error[:60])
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for command, error in re.findall(r"^\$ (.*)\n(error: .*)$", block, re.MULTILINE)
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with shards of two sizes, an evaluation and a run that failed early."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "ds_configs").symlink_to(ROOT / "ds_configs")
    clip = encode_raw(np.zeros((2, 2, 2, 3), np.uint8))
    for name, side in (("mine", 128), ("small", 64)):
        shards = [[(f"clip{lane}.npy", clip)] for lane in range(16)]
        video = VideoSpec(frames=16, height=side, width=side, fps=None)
        write_tars(folder / f"shards/{name}/train", shards, video, lanes=16)
    (folder / "evaluated/mine").mkdir(parents=True)
    (folder / "evaluated/mine/report.json").touch()
    (folder / "runs/mine").mkdir(parents=True)
    return folder


def test_the_page_has_enough_errors() -> None:
    assert PAGE.count("\n## ") >= 10
    assert len(QUOTED) == PAGE.count("\n$ ") >= 8


@pytest.mark.parametrize(("command", "error"), QUOTED)
def test_a_quoted_error_is_what_is_printed(home: Path, command: str, error: str) -> None:
    words = shlex.split(command)
    script = next(word for word in words if word.startswith("scripts/"))
    ranks = int(words[words.index("--num_gpus") + 1]) if "--num_gpus" in words else 1
    arguments = words[words.index(script) + 1 :]
    started = start(Path(script).name, *arguments, ranks=ranks, cwd=home)
    assert started.wait() == [2] * ranks, started.output
    assert started.stderr().splitlines()[-1] == error
