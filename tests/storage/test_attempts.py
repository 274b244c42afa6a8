import pytest

from coordtok.errors import DataError
from coordtok.storage.attempts import retry


def test_pauses_between_attempts_grow(monkeypatch):
    pauses = []
    monkeypatch.setattr("coordtok.storage.attempts._FIRST_PAUSE_S", 0.5)
    monkeypatch.setattr("time.sleep", pauses.append)

    def action():
        raise OSError("down")

    with pytest.raises(DataError, match="here cannot be read after 4 attempts: down"):
        retry(action, "here", 3)
    assert pauses == [0.5, 1.0, 2.0]


def test_what_comes_right_is_not_an_error(monkeypatch):
    monkeypatch.setattr("coordtok.storage.attempts._FIRST_PAUSE_S", 0.0)
    failures = [OSError("down"), OSError("down")]

    def action():
        if failures:
            raise failures.pop()

    retry(action, "here", 2)
    assert not failures
