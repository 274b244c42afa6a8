import pytest

from coordtok.errors import one_line


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
