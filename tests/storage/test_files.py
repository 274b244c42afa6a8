import os
import re
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from coordtok.errors import DataError
from coordtok.storage.files import (
    append_whole,
    check_new,
    remove_partial,
    replace_text,
    whole_file,
    whole_folder,
    write_whole,
)


def write_half(path):
    with whole_file(path) as file:
        file.write(b"half")
        raise RuntimeError


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a"
    with pytest.raises(RuntimeError):
        write_half(path)
    assert list(tmp_path.iterdir()) == []
    write_whole(path, b"first")
    with pytest.raises(RuntimeError):
        write_half(path)
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(DataError, match="cannot write"):
        write_whole(tmp_path / "missing" / "a", b"")


@pytest.mark.parametrize("path", ["/", "."])
def test_a_folder_is_no_name_for_a_file(path: str) -> None:
    with pytest.raises(DataError, match=rf"cannot write {re.escape(path)}: Is a directory"):
        write_whole(Path(path), b"")


@pytest.mark.parametrize("linked", [False, True])
def test_nothing_but_a_file_is_replaced(tmp_path, linked):
    """A pipe here; a device is another such thing, which only root could replace."""
    pipe, name = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    name.symlink_to(pipe)
    with pytest.raises(DataError, match="it is no regular file"):
        write_whole(name if linked else pipe, b"text")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert name.is_symlink()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "pipe"]


def test_a_link_leads_to_the_new_file(tmp_path):
    path, name = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"old")
    name.symlink_to(path)
    write_whole(name, b"new")
    assert name.is_symlink()
    assert path.read_bytes() == b"new"


def test_a_folder_does_not_replace_a_file(tmp_path):
    (tmp_path / "a").touch()
    with (
        pytest.raises(DataError, match="Not a directory"),
        whole_folder(tmp_path / "a", replace=True),
    ):
        pytest.fail("the work was begun")
    assert (tmp_path / "a").is_file()


WRITE_TOO_MUCH = """
import sys
from pathlib import Path
from coordtok.cli import exit_on_user_error
from coordtok.storage.files import write_whole
sys.exit(exit_on_user_error(write_whole)(Path(sys.argv[1]), bytes(1 << 20)))
"""


def test_a_full_disk_keeps_what_was_there(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    done = subprocess.run(
        [sys.executable, "-c", WRITE_TOO_MUCH, str(path)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write {path}")
    assert len(done.stderr.splitlines()) == 1
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_when_it_is_complete(tmp_path):
    folder = tmp_path / "new" / "out"
    with whole_folder(folder) as part:
        (part / "a").write_text("a")
        assert not folder.exists()
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    assert (folder / "a").read_text() == "a"
    with pytest.raises(DataError, match="exists already"), whole_folder(folder):
        pass


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as part:
        (part / "a").touch()
    assert (tmp_path / "out" / "a").exists()


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    def fail():
        with whole_folder(tmp_path / "out") as part:
            (part / "a").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_where_none_can_be(tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "out"
    with pytest.raises(DataError, match="cannot write"), whole_folder(out):
        pass
    with pytest.raises(DataError, match=r"cannot write .* Not a directory; choose another"):
        check_new(out)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(DataError, match="exists already"):
        check_new(tmp_path / "link")


def test_a_place_for_a_folder_is_found_out_beforehand(tmp_path):
    check_new(tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="cannot write /proc/new/out"):
        check_new(Path("/proc/new/out"))


def test_a_line_that_does_not_fit_is_not_torn(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_whole(path, "first\n")
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            append_whole(path, "second line\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, usual)
    assert path.read_text() == "first\n"
    append_whole(path, "second\n")
    assert path.read_text() == "first\nsecond\n"


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    for name in ("a.77.part", "b.tar.8.part", "mine.part", "c"):
        (tmp_path / name).touch()
    remove_partial(tmp_path, "a")
    assert {path.name for path in tmp_path.iterdir()} == {"b.tar.8.part", "mine.part", "c"}
    remove_partial(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.part", "c"}


def test_callers_with_words_of_their_own_get_the_system_s_error(tmp_path: Path) -> None:
    replace_text(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == "é\n".encode()
    with pytest.raises(FileNotFoundError):
        replace_text(tmp_path / "missing" / "a", "")


def test_a_folder_replaces_another_only_once_it_is_complete(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "old").touch()

    def fail():
        with whole_folder(folder, replace=True) as part:
            (part / "new").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [path.name for path in folder.iterdir()] == ["old"]
    with whole_folder(folder, replace=True) as part:
        (part / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_link_in_a_circle_is_one_line(tmp_path):
    (tmp_path / "a").symlink_to("a")
    with pytest.raises(DataError, match="cannot write"), whole_folder(tmp_path / "a", replace=True):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
