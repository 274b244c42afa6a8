import json
from pathlib import Path

import pytest

from coordtok.errors import ConfigError, DataError
from coordtok.storage.claims import Claim


def test_a_claim_is_taken_gone_on_with_and_completed(tmp_path: Path) -> None:
    claim = Claim(tmp_path, "work.json", {"seed": 1, "sizes": [2, 3]})
    (tmp_path / "work.json.77.part").write_text("{")
    assert claim.take() is None
    (tmp_path / "a.tar.77.part").write_text("half")
    (tmp_path / "b.tar").write_text("whole")
    assert Claim(tmp_path, "work.json", {"seed": 1, "sizes": [2, 3]}).take() is None
    claim.complete({"clips": 4})
    assert claim.take() == {"clips": 4}
    assert {path.name for path in tmp_path.iterdir()} == {"work.json", "b.tar"}


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    Claim(tmp_path, "work.json", {"seed": 1, "batch": 2}).take()
    with pytest.raises(ConfigError, match=r"was begun with batch 2, not 3: choose another"):
        Claim(tmp_path, "work.json", {"seed": 1, "batch": 3}).take()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"settings": 1, "summary": null}'])
def test_a_damaged_claim_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "work.json").write_text(text)
    with pytest.raises(DataError, match=r"work\.json is damaged"):
        Claim(tmp_path, "work.json", {"seed": 1}).take()


def test_foreign_files_are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.part").write_text("mine")
    with pytest.raises(DataError, match=r"not empty and has no work\.json"):
        Claim(tmp_path, "work.json", {"seed": 1}).take()
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == '["mine.part"]'


def test_a_folder_may_be_looked_at_before_it_is_claimed(tmp_path: Path) -> None:
    assert Claim(tmp_path, "work.json", {"seed": 1}).check() == (False, None)
    assert not list(tmp_path.iterdir())
    Claim(tmp_path, "work.json", {"seed": 1}).take()
    assert Claim(tmp_path, "work.json", {"seed": 1}).check() == (True, None)


def test_inputs_that_changed_are_refused(tmp_path: Path) -> None:
    claim = Claim(tmp_path, "work.json", {"seed": 1})
    assert claim.take("a") is None
    with pytest.raises(DataError, match="is made from changed since it was begun"):
        Claim(tmp_path, "work.json", {"seed": 1}).take("b")
    again = Claim(tmp_path, "work.json", {"seed": 1})
    assert again.take("a") is None
    again.complete({"clips": 4})
    assert Claim(tmp_path, "work.json", {"seed": 1}).take("a") == {"clips": 4}
