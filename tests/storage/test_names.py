import re

import pytest

from coordtok.storage.names import safe_name

STRANGE = [
    "", ".", "..", "../../etc/passwd", "/abs", "a/b", "a-b/", "a b", "-rf", "a\nb", "a\0b", "ünï",
    "\udcff", "C:\\x", "x" * 65, "x" * 66, "x" * 64 + "/", "a.b", "a..b", "CON:", "~", "$HOME",
]  # fmt: skip


@pytest.mark.parametrize("key", ["a", "bbb-02bab806c3f4-00010128", "A_1-b", "x" * 64])
def test_plain_keys_stay(key: str) -> None:
    assert safe_name(key) == key


def test_strange_keys_become_names_of_their_own() -> None:
    names = [safe_name(key) for key in STRANGE]
    assert len(set(names)) == len(STRANGE)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name, re.ASCII)
        assert not name.startswith("-")
