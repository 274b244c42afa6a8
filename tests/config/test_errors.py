import pytest

from coordtok import errors
from coordtok.errors import DataError, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        (" two\n lines\tand\u2028more ", "two lines and more"),
        ("фильм 映画 é 🎬.mp4", "фильм 映画 é 🎬.mp4"),
        ("\x1b]0;title\x07\x1b[31mred", r"\x1b]0;title\x07\x1b[31mred"),
        ("a\x9b2J", r"a\x9b2J"),
        ("gpj.\u202e4pm", r"gpj.\u202e4pm"),
        ("latin\udce9", r"latin\udce9"),
        (r"C:\new", r"C:\new"),
        (ValueError("a\nb"), "a b"),
    ],
)
def test_a_line_is_one_and_safe_to_print(text, line):
    assert one_line(text) == line
    assert one_line(one_line(text)) == line


CLONE = (
    "python scripts/import_official.py A; scripts/train.py; python -m data_prep.verify_shards D; "
    "deepspeed --num_gpus 8 scripts/train.py --deepspeed ds_configs/zero3.json"
)
INSTALLED = (
    "coordtok-import-official A; coordtok-train; coordtok-verify-shards D; "
    "deepspeed --num_gpus 8 --module coordtok.commands.train --deepspeed zero3"
)


@pytest.mark.parametrize(("in_clone", "said"), [(True, CLONE), (False, INSTALLED)])
def test_errors_name_commands_as_they_are_typed(monkeypatch, in_clone, said):
    monkeypatch.setattr(errors, "in_clone", lambda: in_clone)
    assert str(DataError(CLONE)) == one_line(DataError(CLONE)) == said
    assert DataError(CLONE).args == (CLONE,)


@pytest.mark.parametrize(
    ("started", "found"), [("train.py", True), ("/bin/coordtok-train", False), ("pytest", True)]
)
def test_a_command_of_an_installed_package_is_none_of_a_clone(monkeypatch, started, found):
    monkeypatch.setattr("sys.argv", [started])
    errors.in_clone.cache_clear()
    assert errors.in_clone() is found
    errors.in_clone.cache_clear()
