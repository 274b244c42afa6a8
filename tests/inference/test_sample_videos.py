"""Videos of a generator, which depend on the seed and on nothing about how they were made."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from coordtok.config.models import DiTModelConfig
from coordtok.config.sampling import SamplerConfig
from coordtok.models.dit import TriplaneDiT
from coordtok.pretrained.card import Card, GeneratorSettings, Origin, TokenizerId, read_card
from coordtok.pretrained.fingerprint import fingerprint
from coordtok.pretrained.write import write_export
from tests.inference.conftest import CONFIG, contents
from tests.support.ranks import ROOT, finish

MODEL = DiTModelConfig(
    plane_size=CONFIG.plane_size,
    plane_channels=CONFIG.plane_channels,
    dim=16,
    heads=2,
    layers=2,
    classes=3,
)
PER_CHANNEL = {"xy": [0.5] * 4, "yt": [1.0] * 4, "xt": [2.0] * 4}
STATISTICS = {"mean": PER_CHANNEL, "std": PER_CHANNEL}


@pytest.fixture(scope="module")
def generator(export: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator of random weights, none of them zero, for the tokenizer's latents."""
    torch.manual_seed(0)
    model = TriplaneDiT(MODEL)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    folder = tmp_path_factory.mktemp("generator") / "dit"
    tokenizer = TokenizerId(str(export), fingerprint(export))
    settings = GeneratorSettings(STATISTICS, tokenizer, SamplerConfig(steps=4))
    write_export(folder, Card(MODEL, settings, Origin("raw")), model.state_dict())
    return folder


@pytest.fixture
def run(generator: Path, tmp_path: Path) -> Callable[..., Path]:
    """Function (name, *options, ranks) that samples 5 videos into a folder."""

    def sample(name: str, *options: object, ranks: int = 1) -> Path:
        arguments = ["--model", generator, "--output", tmp_path / name, "--num", 5]
        finish("sample.py", *arguments, "--save-latents", *options, ranks=ranks)
        return tmp_path / name

    return sample


def latents(folder: Path) -> dict[str, np.ndarray]:
    files = sorted(folder.glob("*.safetensors"))
    assert len(files) == 5
    parts = [load_file(file) for file in files]
    return {name: np.stack([part[name].numpy() for part in parts]) for name in parts[0]}


def test_ranks_do_not_show_and_the_batch_hardly(run: Callable[..., Path]) -> None:
    options = ["--class", "2,0", "--guidance", 3]
    one = run("one", *options, "--batch", 2)
    two = run("two", *options, "--batch", 2, ranks=2)
    assert contents(one) == contents(two)
    other = run("other", *options, "--batch", 3)
    for name, planes in latents(one).items():
        assert np.ptp(planes, axis=0).max() > 0.1
        np.testing.assert_allclose(latents(other)[name], planes, rtol=1e-4, atol=1e-4)


def test_the_folder_says_what_it_holds(run: Callable[..., Path], generator: Path) -> None:
    folder = run("some", "--sampler", "heun", "--seed", 7)
    record = json.loads((folder / "sample.json").read_text())
    assert record["summary"] == {"videos": 5}
    assert record["settings"]["sampler"]["name"] == "heun"
    assert record["settings"]["sampler"]["steps"] == 4  # the model's own
    assert record["settings"]["seed"] == 7
    assert Image.open(folder / "grid.png").size == (8 * CONFIG.width, 5 * CONFIG.height)
    before = contents(folder)
    (folder / "00000003.mp4").unlink()
    run("some", "--sampler", "heun", "--seed", 7)
    assert contents(folder) == before
    run("some", "--sampler", "heun", "--seed", 7, "--num", 2)
    assert contents(folder) == before  # five are there, whatever was asked for last
    arguments = ["--model", generator, "--output", folder, "--save-latents", "--sampler", "heun"]
    assert "was begun with seed 7, not 0" in finish("sample.py", *arguments, code=2).stderr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--class", "3"], "class 3 is asked for, but the model has the classes 0 to 2"),
        (["--class", "cat"], "give numbers"),
        (["--guidance", "2"], "but no class is given"),
        (["--num", "0"], "num is 0"),
        (["--batch", "0"], "batch is 0"),
        (["--steps", "0"], "sampler.steps is 0; it must be between 1 and"),
        (["--steps", "1"], "euler_maruyama takes at least 2"),
        (["--fps", "0"], "fps is 0"),
        (["--tokenizer", "nowhere"], "nowhere: no such folder"),
        (["--tokenizer", "{generator}"], "holds a model of kind 'dit', not 'coordtok'"),
        (["--tokenizer", "{other}"], "makes latents of the tokenizer"),
        (["--model", "{export}"], "holds a model of kind 'coordtok', not 'dit'"),
    ],
)
def test_what_cannot_be_sampled_is_one_line(
    generator: Path,
    export: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    options: list[str],
    message: str,
) -> None:
    other = tmp_path / "other"
    card = Card(CONFIG, read_card(export).settings, Origin("raw"))
    weights = {name: tensor + 1 for name, tensor in load_file(export / "model.safetensors").items()}
    write_export(other, card, weights)
    names = {"generator": generator, "other": other, "export": export}
    arguments = ["--model", str(generator), "--output", str(tmp_path / "out")]
    arguments += [option.format(**names) for option in options]
    monkeypatch.setattr("sys.argv", ["sample.py", *arguments])
    monkeypatch.setattr("coordtok.distributed.setup", lambda: None)
    assert runpy.run_path(str(ROOT / "scripts/sample.py"))["main"]() == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").glob("*.mp4"))
