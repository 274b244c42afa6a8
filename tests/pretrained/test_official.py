"""The authors' weights, imported: planes and pixels are those of the authors' code.

tests/fixtures/official was made by `release.Release`, which stands for that code; the authors' own
outputs are ten megabytes, which tests use where they lie beside the repository.
"""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from coordtok import CoordTok, Triplane
from coordtok.errors import CheckpointError, ConfigError
from coordtok.pretrained.card import read_card
from coordtok.pretrained.official.convert import ImportOptions, import_official
from tests.support.release import TINY, L, Release, S, Sizes, random_weights

ROOT = Path(__file__).parents[2]
COMMITTED = ROOT / "tests/fixtures/official"
AUTHORS = ROOT.parent / "shared/official_fixture"
FIXTURES = [
    COMMITTED,
    pytest.param(
        AUTHORS, marks=pytest.mark.skipif(not AUTHORS.is_dir(), reason="the authors' outputs")
    ),
]
TOLERANCE = 1e-4


def imported(path: Path, folder: Path, **options: Any) -> CoordTok:
    import_official(path, folder, ImportOptions(**options), overwrite=True)
    return CoordTok.from_pretrained(folder)


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.reshape(theirs.shape) - theirs).abs().max() / theirs.abs().max())


def ours_of(planes: Sequence[torch.Tensor]) -> Triplane:
    """Their yt is (t, column), our xt; their xt is (t, row), our yt."""
    xy, yt, xt = planes
    return Triplane(xy, yt=xt, xt=yt)


def saved(path: Path, weights: Any, **rest: Any) -> Path:
    torch.save({"model": weights, **rest}, path)
    return path


@pytest.mark.parametrize("fixture", FIXTURES)
@torch.no_grad()
def test_whole_clips_equal_the_release(fixture: Path, tmp_path: Path) -> None:
    model = imported(fixture / "tokenizer.pth", tmp_path / "out", heads=2)
    io = torch.load(fixture / "tokenizer_io.pt", weights_only=True)
    planes = model.encode(io["video"])
    for plane, theirs in zip(planes, ours_of(io["planes"])):
        assert relative_error(plane, theirs) < TOLERANCE
    assert relative_error(model.decode_at(planes, io["index"]), io["pixels"]) < TOLERANCE


@pytest.mark.parametrize("fixture", FIXTURES)
@torch.no_grad()
def test_short_clips_equal_it_with_the_switch_alone(fixture: Path, tmp_path: Path) -> None:
    io = torch.load(fixture / "tokenizer_io.pt", weights_only=True)
    for legacy in (True, False):
        path, out = fixture / "tokenizer.pth", tmp_path / "out"
        model = imported(path, out, heads=2, legacy_padding=legacy)
        planes = model.encode(io["video"], io["short_num_frames"])
        pixels = model.decode_at(planes, io["index"])
        theirs = [*ours_of(io["short_planes_legacy"]), io["short_pixels_legacy"]]
        errors = [relative_error(a, b) for a, b in zip([*planes, pixels], theirs)]
        assert max(errors) < TOLERANCE if legacy else min(errors) > 0.05


def test_the_card_says_what_was_imported(tmp_path: Path) -> None:
    imported(COMMITTED / "tokenizer.pth", tmp_path / "out", heads=2, legacy_padding=True)
    card = read_card(tmp_path / "out")
    assert card.model.legacy_padding
    assert (card.model.frames, card.model.heads, card.settings.points_per_pass) == (16, 2, 1024)
    assert (card.origin.weights, card.origin.step) == ("raw", 50000)
    assert card.origin.history == {"imported_from": "tokenizer.pth"}


def test_odd_sizes_and_bare_names(tmp_path: Path) -> None:
    """Other depths and clips than the released ones; no `module.` before names; half precision."""
    sizes = Sizes(dim=64, heads=1, layers=(2, 1, 3), frames=24, side=48)
    weights = {n.removeprefix("module."): w.half() for n, w in random_weights(sizes).items()}
    model = imported(saved(tmp_path / "odd.pth", weights), tmp_path / "out")
    config = model.config
    assert config.video_size == (24, 48, 48)
    assert (config.video_layers, config.plane_layers, config.decoder_layers) == (2, 1, 3)
    assert (config.dim, config.heads, config.mlp_ratio) == (64, 1, 4.0)
    compare({name: tensor.float() for name, tensor in weights.items()}, 1, model)


@torch.no_grad()
def compare(
    weights: dict[str, torch.Tensor], heads: int, model: CoordTok, points: int = 64
) -> None:
    """Encode a random clip and decode some of its patches, as the release and as we do."""
    generator = torch.Generator().manual_seed(3)
    shape = (1, *model.config.video_size, 3)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    grid = model.decoder.grid.shape
    index = [torch.randint(0, size, (1, 64), generator=generator) for size in grid]
    index_BN3 = torch.stack(index, dim=-1)
    release = Release(weights, heads)
    theirs = release.encode(video, [shape[1]])
    planes = model.encode(video)
    for plane, their_plane in zip(planes, ours_of(theirs)):
        assert relative_error(plane, their_plane) < TOLERANCE
    pixels = release.decode(theirs, index_BN3)
    assert relative_error(model.decode_at(planes, index_BN3), pixels) < TOLERANCE


def test_size_s_imports_and_runs(tmp_path: Path) -> None:
    import_and_compare(S, 107_748_032, tmp_path)


@pytest.mark.slow
def test_size_l_imports_and_runs(tmp_path: Path) -> None:
    import_and_compare(L, 853_410_496, tmp_path)


def import_and_compare(sizes: Sizes, parameters: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "released.pth", random_weights(sizes))
    model = imported(path, tmp_path / "out")
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.config.heads == sizes.heads
    weights = torch.load(path, weights_only=True, mmap=True)["model"]
    compare(weights, sizes.heads, model)


@pytest.fixture
def tiny() -> dict[str, torch.Tensor]:
    return random_weights(TINY)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("decoder.projector.bias", None, "lacks decoder.projector.bias; download it again"),
        ("weight_tokens_yt", None, r"weight_tokens_yt is missing; it must have 4 axes"),
        ("weight_tokens_yt", torch.ones(3), r"weight_tokens_yt is \(3,\); it must have 4 axes"),
        ("encoder.cross_pos_emb", torch.ones(5), r"encoder.cross_pos_emb has shape \(5,\), which"),
        (
            "encoder.transformer.layers.1.cross_attn.in_proj_weight",
            torch.ones(48, 9),
            r"cross_attn.in_proj_weight has shape \(48, 9\), which does not fit",
        ),
        ("decoder.projector.weight", torch.ones(100, 16), "makes 100 numbers"),
        ("encoder.norm.weight", torch.ones(16), "holds encoder.norm.weight, which the authors'"),
        ("encoder.norm.weight", "text", "module.encoder.norm.weight is no tensor of floats"),
    ],
)
def test_tensors_that_make_no_tokenizer(
    tiny: dict, tmp_path: Path, name: str, tensor: Any, message: str
) -> None:
    tiny[f"module.{name}"] = tensor
    if tensor is None:
        del tiny[f"module.{name}"]
    with pytest.raises(CheckpointError, match=message) as caught:
        imported(saved(tmp_path / "bad.pth", tiny), tmp_path / "out", heads=2)
    assert "bad.pth" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_heads_that_cannot_be(tiny: dict, tmp_path: Path) -> None:
    path = saved(tmp_path / "tiny.pth", tiny)
    with pytest.raises(ConfigError, match=r"is 16 wide, which heads of 64 .* with --heads"):
        imported(path, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"model.dim is 16, which model.heads 3 does not divide"):
        imported(path, tmp_path / "out", heads=3)


def run_script(monkeypatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["import_official.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "scripts/import_official.py"), run_name="__main__")
    return stopped.value.code


def test_the_command_line(tmp_path: Path, monkeypatch, capsys) -> None:
    path, out = COMMITTED / "tokenizer.pth", tmp_path / "out"
    options = ["--heads", "2", "--legacy-padding", "--points-per-pass", "64"]
    assert run_script(monkeypatch, path, out, *options) == 0
    said = capsys.readouterr().out
    assert "16 frames of 32 x 32, width 16, 2 heads, 1 + 2 + 2 layers" in said
    assert "as in the release" in said
    assert CoordTok.from_pretrained(out).points_per_pass == 64
    assert run_script(monkeypatch, path, out) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
