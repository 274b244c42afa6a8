import pytest


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failing input is tried again at once."""
    monkeypatch.setattr("coordtok.storage.attempts._FIRST_PAUSE_S", 0.0)
