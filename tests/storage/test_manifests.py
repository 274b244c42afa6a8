import hashlib
import io
from pathlib import Path

import pytest

from coordtok.storage.checksums import sha256_of_file, sha256_of_rest
from coordtok.storage.manifests import (
    FileFacts,
    first_damage,
    measure,
    read_manifest,
    write_manifest,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files and their manifest."""
    (tmp_path / "a").write_bytes(b"first" * 1000)
    (tmp_path / "b").write_bytes(b"")
    write_manifest(tmp_path / "manifest", {name: measure(tmp_path / name) for name in "ab"})
    return tmp_path


def test_checksums(tmp_path: Path) -> None:
    content = bytes(range(256)) * (1 << 15)
    (tmp_path / "a").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert sha256_of_file(tmp_path / "a") == sha256_of_file(tmp_path / "a", sync=True) == expected
    stream = io.BytesIO(b"head" + content)
    stream.seek(4)
    assert sha256_of_rest(stream) == expected


def test_a_manifest_is_of_what_is_there(folder: Path) -> None:
    files = read_manifest(folder / "manifest")
    digest = hashlib.sha256(b"first" * 1000).hexdigest()
    assert files["a"] == FileFacts(5000, digest)
    assert files.keys() == {"a", "b"}
    assert first_damage(folder, files.items()) is None


@pytest.mark.parametrize(
    ("content", "damage"),
    [
        (b"first" * 999, "a has 4995 bytes instead of 5000"),
        (b"fIrst" * 1000, "the checksum of a differs"),
        (None, "a is missing"),
    ],
)
def test_the_first_damage_is_named(folder: Path, content: bytes | None, damage: str) -> None:
    files = read_manifest(folder / "manifest")
    (folder / "a").unlink()
    if content is not None:
        (folder / "a").write_bytes(content)
    assert first_damage(folder, files.items()) == damage
    assert first_damage(folder, [("b", files["b"])]) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": {"bytes": 1}}', "[" * 100_000])
def test_a_damaged_manifest_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest").write_text(text)
    with pytest.raises(ValueError):
        read_manifest(tmp_path / "manifest")
