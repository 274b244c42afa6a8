"""The authors' generator, imported: its velocity is that of the authors' code.

tests/fixtures/official/generator.pt was made by `release_generator`, which stands for that code;
the authors' own outputs are six megabytes, which tests use where they lie beside the repository.
"""

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from coordtok import Triplane, TriplaneDiT
from coordtok.errors import CheckpointError, ConfigError
from coordtok.geometry.latent import LatentShape
from coordtok.pretrained.card import read_card
from coordtok.pretrained.fingerprint import fingerprint
from coordtok.pretrained.official.convert import ImportOptions, import_official
from coordtok.pretrained.official.statistics_log import read_statistics
from tests.support.release_generator import Sizes, random_weights, velocity

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "tests/fixtures/official"
AUTHORS = ROOT.parent / "shared/official_fixture"
FIXTURES = [
    COMMITTED,
    pytest.param(
        AUTHORS, marks=pytest.mark.skipif(not AUTHORS.is_dir(), reason="the authors' outputs")
    ),
]
LOG = COMMITTED / "generator_log.txt"
TOLERANCE = 1e-5


def imported(path: Path, folder: Path, log: Path | None = LOG, **options: Any) -> TriplaneDiT:
    import_official(path, folder, ImportOptions(log=log, **options), overwrite=True)
    return TriplaneDiT.from_pretrained(folder)


def ours_of(planes: Sequence[torch.Tensor]) -> Triplane:
    """Their yt is (t, column), our xt; their xt is (t, row), our yt; channels come last here."""
    xy, yt, xt = (plane.movedim(1, -1) for plane in planes)
    return Triplane(xy, yt=xt, xt=yt)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def saved(path: Path, weights: Any, **rest: Any) -> Path:
    torch.save({"model": weights, "ema": weights, "opt": {}, **rest}, path)
    return path


@pytest.mark.parametrize("fixture", FIXTURES)
@torch.no_grad()
def test_the_velocity_is_that_of_the_release(fixture: Path, tmp_path: Path) -> None:
    model = imported(fixture / "generator.pt", tmp_path / "out", fixture / LOG.name, heads=2)
    io = torch.load(fixture / "generator_io.pt", weights_only=True)
    found = model(ours_of(io["latents"]), io["time"])
    for plane, theirs in zip(found, ours_of(io["velocity"])):
        assert relative_error(plane, theirs) < TOLERANCE


@torch.no_grad()
def test_odd_sizes_at_which_all_planes_differ(tmp_path: Path) -> None:
    sizes = Sizes(dim=64, layers=1, rows=3, times=2, channels=5)
    weights = random_weights(sizes, seed=4)
    statistics = tmp_path / "log.txt"
    statistics.write_text(log_lines(5))
    model = imported(saved(tmp_path / "odd.pt", weights), tmp_path / "out", statistics)
    assert model.config.plane_size == (4, 6, 6)
    assert (model.config.heads, model.config.layers, model.config.classes) == (1, 1, 0)
    generator = torch.Generator().manual_seed(1)
    shapes = ((6, 6), (4, 6), (4, 6))
    latents = [torch.randn(2, 5, *shape, generator=generator) for shape in shapes]
    time = torch.tensor([0.0, 0.9])
    theirs = ours_of(velocity(weights, 1, latents, time))
    for plane, other in zip(model(ours_of(latents), time), theirs):
        assert relative_error(plane, other) < TOLERANCE


def test_the_averaged_weights_are_taken(tmp_path: Path) -> None:
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(COMMITTED / "generator.pt", weights_only=True)
    name = "t_embedder.mlp.2.bias"
    assert not torch.equal(content["ema"][name], content["model"][name])
    model = imported(COMMITTED / "generator.pt", tmp_path / "out", heads=2)
    assert torch.equal(model.time.out.bias, content["ema"][name])


def test_the_card_says_what_was_imported(tmp_path: Path) -> None:
    imported(COMMITTED / "generator.pt", tmp_path / "out", heads=2)
    card = read_card(tmp_path / "out")
    assert (card.kind, card.model.plane_size, card.model.heads) == ("dit", (8, 4, 4), 2)
    assert (card.origin.weights, card.settings.tokenizer) == ("ema", None)
    assert card.origin.history == {
        "imported_from": "generator.pt",
        "statistics_from": "generator_log.txt",
    }
    assert (card.settings.sampler.name, card.settings.sampler.steps) == ("euler_maruyama", 250)


def log_lines(channels: int = 8, drop: str = "", wrap: bool = False) -> str:
    """As the release logs: colour around the time, torch's print of a tensor."""
    lines = ["[\x1b[34m2025-01-01 00:00:00\x1b[0m] SiT Parameters: 1,234,567"]
    for number, plane in enumerate(("xy", "yt", "xt")):
        for kind, first in (("mean", -1.0), ("std", 1.0)):
            values = [f"{first + number + 0.125 * i: .4f}" for i in range(channels)]
            text = (",\n        " if wrap else ", ").join(values)
            line = f"[\x1b[34m2025-01-01 00:00:00\x1b[0m] {plane}_{kind}: tensor([{text}])"
            lines += [] if f"{plane}_{kind}" == drop else [line]
    return "\n".join([*lines, "Training for 7500 epochs...", ""])


@pytest.mark.parametrize("wrap", [False, True])
def test_statistics_are_read_with_planes_swapped(tmp_path: Path, wrap: bool) -> None:
    log = tmp_path / "log.txt"
    log.write_text(log_lines(wrap=wrap) + log_lines().replace("tensor([", "tensor([9"))
    found = read_statistics(log, LatentShape.triplane((1, 1, 1), 8))
    steps = 0.125 * torch.arange(8)
    assert torch.equal(found.mean.xy, -1 + steps)
    assert torch.equal(found.mean.xt, 0 + steps)  # their yt
    assert torch.equal(found.mean.yt, 1 + steps)
    assert torch.equal(found.std.xt, 2 + steps)
    assert torch.equal(found.std.yt, 3 + steps)


def test_statistics_of_the_release_reach_the_model(tmp_path: Path) -> None:
    model = imported(COMMITTED / "generator.pt", tmp_path / "out", heads=2)
    assert model.statistics.to_dict() == model.settings.statistics
    torch.testing.assert_close(model.statistics.mean.xt[:2], torch.tensor([0.4628, -0.0178]))
    torch.testing.assert_close(model.statistics.std.yt[:2], torch.tensor([1.3101, 0.6855]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (log_lines(drop="yt_std"), "lacks yt_std: name the log.txt of the run"),
        (log_lines()[:300], "lacks xt_mean"),
        ("", "lacks xy_mean"),
        (log_lines(channels=4), "xy_mean is not 8 numbers, one for each channel"),
        (log_lines().replace("-0.8750", "what"), "xy_mean is not 8 numbers"),
        (log_lines().replace(" 1.0000", " 0.0000"), r"xy_std has 0\.0, which no std is"),
        (log_lines().replace("-0.8750", "nan"), "xy_mean is not 8 numbers"),
    ],
)
def test_logs_that_lack_something(tmp_path: Path, text: str, message: str) -> None:
    log = tmp_path / "log.txt"
    log.write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        imported(COMMITTED / "generator.pt", tmp_path / "out", log, heads=2)
    assert str(log) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_log_that_is_none(tmp_path: Path) -> None:
    path, out = COMMITTED / "generator.pt", tmp_path / "out"
    with pytest.raises(ConfigError, match=r"only in the log of its training; name that .* --log"):
        imported(path, out, None, heads=2)
    with pytest.raises(CheckpointError, match=r"cannot read .*nothing.txt: No such file"):
        imported(path, out, tmp_path / "nothing.txt", heads=2)
    with pytest.raises(CheckpointError, match=r"cannot read .*: Is a directory; --log is"):
        imported(path, out, tmp_path, heads=2)


@pytest.fixture
def tiny() -> dict[str, Any]:
    return random_weights(Sizes(channels=8))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("blocks.1.attn.qkv.bias", None, r"lacks blocks\.1\.attn\.qkv\.bias; download it again"),
        ("pos_embed_t", None, "pos_embed_t is missing; it must have 3 axes"),
        ("pos_embed_t", torch.ones(1, 7, 16), "tables of 16 and 7 tokens are not of square frames"),
        ("pos_embed_xy", torch.ones(1, 15, 16), "tables of 15 and 24 tokens are not of square"),
        ("type_embed", torch.ones(1, 2, 16), r"type_embed has shape \(1, 2, 16\), which does not"),
        ("final_layer_yt.linear.weight", torch.ones(33, 16), r"linear.weight has shape \(33, 16\)"),
        ("y_embedder.embedding_table.weight", torch.ones(101, 16), "has 101 classes; the authors'"),
        ("blocks.0.norm1.weight", torch.ones(16), r"holds blocks\.0\.norm1\.weight, which the"),
        ("type_embed", "text", "type_embed is no tensor of floats"),
    ],
)
def test_tensors_that_make_no_generator(
    tiny: dict, tmp_path: Path, name: str, tensor: Any, message: str
) -> None:
    tiny[name] = tensor
    if tensor is None:
        del tiny[name]
    with pytest.raises(CheckpointError, match=message) as caught:
        imported(saved(tmp_path / "bad.pt", tiny), tmp_path / "out", heads=2)
    assert "bad.pt" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_file_without_averaged_weights(tiny: dict, tmp_path: Path) -> None:
    path = saved(tmp_path / "bare.pt", tiny, ema=None)
    with pytest.raises(CheckpointError, match="lacks ema, the averaged weights"):
        imported(path, tmp_path / "out", heads=2)


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("generator.pt", {"legacy_padding": True}, "generator, which takes no --legacy-padding"),
        ("generator.pt", {"points_per_pass": 64}, "generator, which takes no --points-per-pass"),
        ("tokenizer.pth", {"log": LOG}, "tokenizer, which takes no --log"),
        ("tokenizer.pth", {"tokenizer": LOG}, "tokenizer, which takes no --tokenizer"),
    ],
)
def test_options_of_the_other_kind(
    tmp_path: Path, file: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        import_official(COMMITTED / file, tmp_path / "out", ImportOptions(heads=2, **options))


def test_the_tokenizer_is_recorded_if_its_latents_are_the_generators(
    tiny: dict, tmp_path: Path, make_export
) -> None:
    import_official(COMMITTED / "tokenizer.pth", tmp_path / "tok", ImportOptions(heads=2))
    sizes = Sizes(rows=8, times=16, channels=8)
    path = saved(tmp_path / "sit.pt", random_weights(sizes))
    model = imported(path, tmp_path / "out", heads=2, tokenizer=tmp_path / "tok")
    assert model.settings.tokenizer.path == str(tmp_path / "tok")
    assert model.settings.tokenizer.fingerprint == fingerprint(tmp_path / "tok")
    other = make_export()
    with pytest.raises(ConfigError, match="has plane xy of 2 x 6 with 4 channels, not of"):
        imported(path, tmp_path / "out", heads=2, tokenizer=other)
    with pytest.raises(ConfigError, match="holds no tokenizer, but a model of dit"):
        imported(path, tmp_path / "new", heads=2, tokenizer=tmp_path / "out")


def test_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    path, out = COMMITTED / "generator.pt", tmp_path / "out"

    def run(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["import_official.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "scripts/import_official.py"), run_name="__main__")
        return stopped.value.code

    assert run(path, out, "--heads", "2", "--log", LOG, "--dtype", "bfloat16") == 0
    said = capsys.readouterr().out
    assert "generator of planes xy of 4 x 4 with 8 channels, yt of 8 x 4 with 8 channels" in said
    assert TriplaneDiT.from_pretrained(out).label.weight.dtype == torch.bfloat16
    assert run(path, tmp_path / "new", "--heads", "2") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "--log" in error
    assert error.count("\n") == 1
