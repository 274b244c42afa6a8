import io
import sys

import pytest

from coordtok import progress
from coordtok.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_lines_and_what_is_told_between_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    with ProgressBar(total=3, desc="videos", mininterval=0) as bar:
        bar.update()
        ProgressBar.write("a note", file=sys.stderr)
        bar.update(2)
    said = capsys.readouterr().err
    assert "\r" not in said
    assert said.startswith("videos:   0% 0/3 [")
    assert "\na note\n" in said
    assert said.splitlines()[-1].startswith("videos: 100% 3/3 [")


def test_short_work_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(ProgressBar(range(1000), desc="verify", mininterval=0)) == list(range(1000))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("verify: 100% 1000/1000 [")
    with ProgressBar(total=5, disable=True) as bar:
        bar.update()
    assert not capsys.readouterr().err


def test_a_terminal_gets_a_bar() -> None:
    screen = Terminal()
    with ProgressBar(total=3, file=screen, mininterval=0) as bar:
        bar.update(3)
    assert "\r100%|" in screen.getvalue()
