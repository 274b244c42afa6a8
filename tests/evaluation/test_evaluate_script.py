"""scripts/evaluate.py from end to end: figures, pictures, any number of ranks, and bad input."""

import csv
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from coordtok import distributed
from coordtok.evaluation.contact_sheet import MARGIN
from coordtok.evaluation.metrics import motion, psnr, ssim
from coordtok.geometry.pixels import from_uint8
from coordtok.models.tokenizer import CoordTok
from coordtok.video.mp4 import Mp4Writer
from tests.support.ranks import finish

SCRIPT = Path(__file__).parents[2] / "scripts" / "evaluate.py"
Run = Callable[..., int]


class Colours(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean(dim=(2, 3, 4)), x.std(dim=(2, 3, 4))], dim=1)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "colours.pt"
    torch.jit.script(Colours()).save(path)
    return path


@pytest.fixture
def run(
    tiny_export: Path, clip_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Function (option=value, ...) that runs the script in this process; its exit code. None
    leaves an option out."""
    spec = importlib.util.spec_from_file_location("evaluate", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(distributed, "setup", lambda: None)

    def call(**changed: Any) -> int:
        options = {
            "model": tiny_export, "shards": clip_shards, "output": tmp_path / "out",
            "device": "cpu", "workers": 0, "batch": 2, **changed,
        }  # fmt: skip
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words(options)])
        return script.main()

    return call


def words(options: dict[str, Any]) -> list[str]:
    given = {key.replace("_", "-"): value for key, value in options.items() if value is not None}
    return [f"--{key}" if value is True else f"--{key}={value}" for key, value in given.items()]


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "per_clip.csv").open(newline="")))


def one_line(text: str) -> str:
    """The one line beside progress bars."""
    lines = [line for line in text.splitlines() if line.strip() and "% " not in line]
    assert len(lines) == 1, text
    return lines[0]


def write_generated(folder: Path, number: int, frames: int = 8, height: int = 16) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(5)
    for name in range(number):
        with Mp4Writer(folder / f"{name:03d}.mp4", Fraction(24)) as writer:
            still = rng.integers(0, 200, (height, 24, 3))
            for time in range(frames):
                writer.write((still + time).astype(np.uint8))
    return folder


def test_scores_are_those_of_the_model_without_padding(
    run: Run, tiny_export: Path, tmp_path: Path, moving_noise: Callable[..., np.ndarray]
) -> None:
    assert run() == 0
    model = CoordTok.from_pretrained(tiny_export)
    found = rows(tmp_path / "out")
    assert [row["key"] for row in found] == [f"clip{n}" for n in (0, 2, 4, 6, 1, 3, 5)]
    for row in found:
        start, frames = int(row["start"]), int(row["frames"])
        number = int(row["key"].removeprefix("clip"))
        assert frames == (5 if number == 2 else 8)
        source = torch.from_numpy(moving_noise(number, 20, 16, 24)[start : start + frames])
        padded = torch.full((1, 8, 16, 24, 3), 77, dtype=torch.uint8)
        padded[0, :frames] = source
        output = model.decode(model.encode(padded, [frames]))[0, :frames]
        target = from_uint8(source)
        assert float(row["psnr"]) == pytest.approx(psnr(output, target), abs=1e-4)
        assert float(row["ssim"]) == pytest.approx(ssim(output, target), abs=1e-5)
        assert float(row["motion"]) == pytest.approx(motion(source))
    metrics = report(tmp_path / "out")["metrics"]
    for name in ("psnr", "ssim", "motion"):
        assert metrics[name] == pytest.approx(np.mean([float(row[name]) for row in found]))
    pairs = np.array([[float(row["motion"]), float(row["psnr"])] for row in found])
    assert metrics["motion_correlation"] == pytest.approx(np.corrcoef(pairs.T)[0, 1])


def test_what_the_report_says(
    run: Run, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(features=network, features_size=0, fvd_frames=5, points_per_pass=24, seed=4) == 0
    found = report(tmp_path / "out")
    assert found["decoding"]["points_per_pass"] == 24
    assert found["clips"]["scored"] == 7
    assert found["clips"]["unreadable"] == 0
    assert (found["clips"]["protocol"], found["clips"]["seed"]) == ("one window of every sample", 4)
    assert (found["model"]["weights"], found["model"]["tokens"]) == ("raw", 44)
    assert found["data"]["samples"] == 7
    (distance,) = found["metrics"]["rfvd"]
    assert (distance["frames"], distance["clips"], distance["dimension"]) == (5, [7, 7], 6)
    assert distance["reliable"]
    assert distance["value"] > 0
    assert set(found["definitions"]) == set(found["metrics"])
    printed = capsys.readouterr().out
    assert (tmp_path / "out" / "report.md").read_text() in printed
    assert "rFVD (colours.pt), 5 frames" in printed


def test_the_list_of_clips_scores_the_same_ones_again(run: Run, tmp_path: Path) -> None:
    assert run(clips=9, seed=3, output=tmp_path / "first") == 0
    assert run(clip_list=tmp_path / "first/clips.csv", output=tmp_path / "again") == 0
    first, again = report(tmp_path / "first"), report(tmp_path / "again")
    assert first["metrics"] == again["metrics"]
    assert first["clips"]["list_sha256"] == again["clips"]["list_sha256"]
    assert rows(tmp_path / "first") == rows(tmp_path / "again")
    assert len(rows(tmp_path / "first")) == 9


def test_sheets_show_the_worst_and_the_best(
    run: Run, tmp_path: Path, moving_noise: Callable[..., np.ndarray]
) -> None:
    assert run() == 0
    ranked = sorted(rows(tmp_path / "out"), key=lambda row: float(row["psnr"]))
    for name, clip in (("worst", ranked[0]), ("best", ranked[-1])):
        sheet = np.asarray(Image.open(tmp_path / "out" / f"{name}.png"))
        number, start = int(clip["key"].removeprefix("clip")), int(clip["start"])
        last = start + int(clip["frames"]) - 1
        enlarged = moving_noise(number, 20, 16, 24)[last].repeat(6, 0).repeat(6, 1)
        right = sheet.shape[1] - MARGIN
        column = sheet[:, right - enlarged.shape[1] : right]
        tops = [
            top
            for top in range(len(sheet) - len(enlarged))
            if (column[top : top + len(enlarged)] == enlarged).all()
        ]
        assert tops == [MARGIN + 20 + 8 + 14 + 10], "the first row of the sheet"
    assert Image.open(tmp_path / "out" / "motion.png").size == (900, 600)


def test_a_plot_is_left_out_where_matplotlib_is_missing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run() == 0
    assert "motion.png is left out: plots need matplotlib" in caplog.text
    assert not (tmp_path / "out" / "motion.png").exists()
    assert (tmp_path / "out" / "report.json").exists()


def test_unreadable_clips_are_counted(
    run: Run, tmp_path: Path, write_clip_shards: Callable[..., Path]
) -> None:
    shards = write_clip_shards(tmp_path / "shards", damaged=(1,))
    assert run(shards=shards) == 0
    clips = report(tmp_path / "out")["clips"]
    assert (clips["scored"], clips["unreadable"]) == (6, 1)


def test_generated_videos(run: Run, network: Path, tmp_path: Path) -> None:
    videos = write_generated(tmp_path / "generated", 9)
    options = {"model": None, "generated": videos, "features": network, "features_size": 0}
    assert run(**options, clips=9) == 0
    found = report(tmp_path / "out")
    (distance,) = found["metrics"]["fvd"]
    assert (distance["frames"], distance["clips"]) == (8, [9, 9])
    assert found["generated"]["videos"] == 9
    assert found["clips"]["scored"] == 9
    assert run(**options, output=tmp_path / "all") == 0
    (distance,) = report(tmp_path / "all")["metrics"]["fvd"]
    assert distance["clips"] == [6, 9], "the short sample is left out"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the processes of `finish` have: sums depend on how threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("generated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_ranks_do_not_show(
    run: Run, tiny_export: Path, clip_shards: Path, network: Path, tmp_path: Path, generated: bool
) -> None:
    """7 clips, in batches of 2, on 1 and 2 ranks."""
    what = (
        {"model": None, "generated": write_generated(tmp_path / "generated", 7), "clips": 7}
        if generated
        else {"model": tiny_export}
    )
    features = {"features": network, "features-size": 0}
    assert run(**what, **features, output=tmp_path / "out1") == 0
    options = {"shards": clip_shards, "device": "cpu", "batch": 2, "output": tmp_path / "out2"}
    finish("evaluate.py", *words({**options, **what, **features}), ranks=2)
    names = {path.name for path in (tmp_path / "out1").iterdir()}
    assert len(names) == (3 if generated else 7)
    for name in names:
        one, two = (tmp_path / f"out{ranks}" / name for ranks in (1, 2))
        assert one.read_bytes() == two.read_bytes(), name


def test_ranks_report_an_error_once(
    tiny_export: Path, clip_shards: Path, tmp_path: Path, write_clip_shards: Callable[..., Path]
) -> None:
    """Non-finite output of the one rank that has a clip."""
    shards = write_clip_shards(tmp_path / "shards", lengths=(8,))
    options = {"model": not_finite(tiny_export, tmp_path), "shards": shards, "device": "cpu"}
    options["output"] = tmp_path / "out"
    printed = finish("evaluate.py", *words(options), ranks=2, code=2).output
    assert printed.count("error: ") == 1
    assert "not finite" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()


def not_finite(export: Path, tmp_path: Path) -> Path:
    """A copy of the export whose last layer gives NaN."""
    folder = shutil.copytree(export, tmp_path / "nan")
    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["decoder.position"][:] = torch.nan
    save_file(weights, path)
    return folder


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "clips": ({"clips": 999}, "more than the 31 different ones"),
    "no clips": ({"clips": 0}, "score at least 1"),
    "batch": ({"batch": 0}, "batch is 0"),
    "grouping": ({"points_per_pass": 0}, "points_per_pass is 0"),
    "model": ({"model": "nowhere"}, "nowhere: no such folder"),
    "shards": ({"shards": "nowhere"}, "nowhere"),
    "device": ({"device": "abacus"}, "abacus"),
    "weights": ({"perceptual": "lpips", "perceptual_weights": "nowhere"}, "nowhere"),
    "list": ({"clip_list": "nowhere.csv"}, "nowhere.csv cannot be read"),
    "features": ({"features": "nowhere.pt"}, "nowhere.pt is no TorchScript file"),
    "length": ({"features": "COLOURS", "fvd_frames": 9}, "clips have 1 to 8 frames"),
    "none": ({"model": None, "generated": "GENERATED"}, "name a network: --features"),
    "generated on": (
        {"model": None, "generated": "GENERATED", "features": "COLOURS", "device": "abacus"},
        "device abacus cannot be used",
    ),
    "generated batch": (
        {"model": None, "generated": "GENERATED", "features": "COLOURS", "batch": 0},
        "batch is 0",
    ),
    "not of videos": (
        {"model": None, "generated": "GENERATED", "features": "COLOURS", "no_ssim": True},
        "--no-ssim does nothing without --model",
    ),
    "no network": ({"fvd_frames": 4}, "--fvd-frames does nothing without --features"),
    "no distance": (
        {"perceptual_weights": "vgg.pth"},
        "--perceptual-weights does nothing without --perceptual",
    ),
    "folder": (
        {"model": None, "generated": "nowhere", "features": "COLOURS"},
        "nowhere cannot be read",
    ),
    "few": (
        {"model": None, "generated": "GENERATED", "features": "COLOURS", "clips": 4},
        "holds 3 .mp4 files, 4 are needed",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(
    run: Run,
    tmp_path: Path,
    network: Path,
    case: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    changed, message = BAD[case]
    if "GENERATED" in changed.values():
        write_generated(tmp_path / "GENERATED", 3)
    shutil.copy(network, tmp_path / "COLOURS")
    assert run(**changed) == 2
    line = one_line(capsys.readouterr().err)
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("damaged", "001.mp4: not a readable video"),
        ("short", "000.mp4: frames 0 to 8 of a video of 5"),
        ("size", "000.mp4: its frames are 32 x 24, not 16 x 24"),
        ("empty", "holds 0 .mp4 files"),
    ],
)
def test_bad_generated_videos(
    run: Run, network: Path, tmp_path: Path, kind: str, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    frames, height = (5 if kind == "short" else 8), (32 if kind == "size" else 16)
    folder = write_generated(tmp_path / "g", 0 if kind == "empty" else 3, frames, height)
    if kind == "damaged":
        (folder / "001.mp4").write_bytes(b"no video")
    code = run(model=None, generated=folder, features=network, features_size=0, batch=1)
    assert code == 2
    assert message in one_line(capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_bad_data(
    run: Run, tiny_export: Path, tmp_path: Path, write_clip_shards: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    other = write_clip_shards(tmp_path / "other", size=(8, 32, 24))
    assert run(shards=other) == 2
    assert "holds frames of 32 x 24" in one_line(capsys.readouterr().err)
    damaged = write_clip_shards(tmp_path / "damaged", lengths=(8, 9), damaged=(0, 1))
    assert run(shards=damaged) == 2
    assert "none of the clips can be read" in one_line(capsys.readouterr().err)
    assert run(model=not_finite(tiny_export, tmp_path)) == 2
    assert "the model's output is not finite" in one_line(capsys.readouterr().err)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert run() == 2
    assert "exists already" in one_line(capsys.readouterr().err)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
