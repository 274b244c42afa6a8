import pytest

from coordtok.errors import ConfigError, DataError, exit_on_user_error, one_line


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


def command(error):
    @exit_on_user_error
    def main():
        if error is not None:
            raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (ConfigError("a\nb"), 2, "error: a b\n"),
        (DataError("x\x1b[2J"), 2, "error: x\\x1b[2J\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_a_command_ends_in_a_line_and_a_code(capsys, monkeypatch, error, code, said):
    monkeypatch.delenv("RANK", raising=False)
    assert command(error)() == code
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("all know"), 2, ""),
        (DataError("this rank alone"), 2, "error: this rank alone\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_all_ranks_find_only_the_first_tells(capsys, monkeypatch, error, code, said):
    monkeypatch.setenv("RANK", "3")
    assert command(error)() == code
    assert capsys.readouterr().err == said


def test_a_mistake_in_the_code_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        command(ZeroDivisionError("a bug"))()
