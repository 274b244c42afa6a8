"""scripts/reconstruct.py from end to end: what it writes, and what it refuses."""

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from coordtok.evaluation.metrics import psnr
from coordtok.geometry.pixels import from_uint8
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import Card, Origin, TokenizerSettings
from coordtok.pretrained.write import write_export
from coordtok.video.source import open_video, resize_and_crop
from tests.support.ranks import finish
from tests.support.tiny import TINY as CONFIG

SCRIPT = Path(__file__).parents[2] / "scripts" / "reconstruct.py"
TOKENS = 4 * 2 + 4 * 6 + 2 * 6
Run = Callable[..., int]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "export"
    card = Card(CONFIG, TokenizerSettings(12), Origin("raw"))
    write_export(folder, card, CoordTok(CONFIG).state_dict())
    return folder


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory, write_video: Callable[..., Path]) -> Path:
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    return write_video(path, 20, 45, 70, rate=Fraction(30000, 1001))


@pytest.fixture
def run(export: Path, film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Function (option=value, ...) that runs the script in this process; its exit code."""
    spec = importlib.util.spec_from_file_location("reconstruct", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def call(**changed: Any) -> int:
        options = {"model": export, "input": film, "output": tmp_path / "out", "device": "cpu"}
        words = [f"--{key.replace('_', '-')}={v}" for key, v in {**options, **changed}.items()]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        return script.main()

    return call


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def shape(path: Path) -> tuple[int, int, int, Fraction | None]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.frames, stream.height, stream.width, stream.average_rate


def test_a_whole_film(run: Run, export: Path, film: Path, tmp_path: Path, capsys: Any) -> None:
    assert run() == 0
    folder = tmp_path / "out"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert shape(folder / "side_by_side.mp4") == (20, 16, 48, Fraction(30000, 1001))
    assert shape(folder / "reconstruction.mp4") == (20, 16, 24, Fraction(30000, 1001))
    told = report(folder)
    assert (told["frames"], told["encoded"], told["windows"], told["clips"]) == (20, 20, 3, 3)
    assert (told["grouping"], told["points_per_pass"]) == ("strided", 12)
    assert (told["video"], told["fit"], told["selection"]) == (str(film), "crop", None)
    assert told["tokens"] == 3 * TOKENS
    assert told["bits_per_pixel"] == pytest.approx(3 * TOKENS * 4 * 16 / (20 * 16 * 24))
    assert set(told["definitions"]) == {"psnr", "tokens", "bits_per_pixel"}
    assert f"PSNR {told['psnr']:.2f} dB" in capsys.readouterr().out
    assert told["psnr"] == pytest.approx(psnr_by_hand(export, film), abs=0.02)


def psnr_by_hand(export: Path, film: Path) -> float:
    model = CoordTok.from_pretrained(export)
    pictures = np.stack([resize_and_crop(frame, 16, 24) for frame in open_video(film).frames()])
    padded = np.concatenate([pictures, np.zeros((4, 16, 24, 3), np.uint8)])
    clips = torch.from_numpy(padded).unflatten(0, (3, 8))
    with torch.no_grad():
        pixels = model.decode(model.encode(clips, [8, 8, 4])).flatten(0, 1)[:20]
    return psnr(pixels, from_uint8(torch.from_numpy(pictures)))


def test_the_source_is_left(run: Run, film: Path, tmp_path: Path) -> None:
    assert run(fit="tile") == 0
    both = np.stack(list(open_video(tmp_path / "out" / "side_by_side.mp4").frames()))
    alone = np.stack(list(open_video(tmp_path / "out" / "reconstruction.mp4").frames()))
    source = np.stack(list(open_video(film).frames()))
    assert alone.shape == source.shape == (20, 45, 70, 3)
    assert np.abs(both[:, :, :70].astype(int) - source).mean() < 2
    # An untrained model's noise suffers from H.264.
    assert np.corrcoef(both[:, :, 70:].flatten(), alone.flatten())[0, 1] > 0.95
    told = report(tmp_path / "out")
    assert (told["height"], told["width"], told["windows"], told["clips"]) == (45, 70, 3, 27)
    assert told["bits_per_pixel"] == pytest.approx(27 * TOKENS * 4 * 16 / (20 * 45 * 70))


def test_chosen_frames_play_at_the_speed_of_the_source(run: Run, tmp_path: Path) -> None:
    assert run(frames="9:19:5", grouping="random", points_per_pass=24, dtype="bfloat16") == 0
    told = report(tmp_path / "out")
    assert (told["frames"], told["encoded"], told["windows"]) == (2, 8, 1)
    assert (told["selection"], told["grouping"], told["points_per_pass"]) == (
        "9:19:5",
        "random",
        24,
    )
    assert told["worst_frame"] in (9, 14)
    assert shape(tmp_path / "out" / "side_by_side.mp4") == (2, 16, 48, Fraction(6000, 1001))


def test_one_frame(run: Run, tmp_path: Path) -> None:
    assert run(frames="13") == 0
    assert shape(tmp_path / "out" / "side_by_side.mp4")[0] == 1


def test_twice_the_frame_rate(run: Run, tmp_path: Path, capsys: Any) -> None:
    assert run(frames="3:8", rate="2", fit="tile") == 0
    told = report(tmp_path / "out")
    assert (told["frames"], told["in_between"], told["selection"]) == (5, 4, "3:8:1/2")
    assert shape(tmp_path / "out" / "side_by_side.mp4") == (9, 45, 140, Fraction(60000, 1001))
    assert "5 frames and 4 in between of 45 x 70" in capsys.readouterr().out
    assert run(frames="3:8", fit="tile", output=tmp_path / "plain") == 0
    plain = report(tmp_path / "plain")
    assert plain["psnr"] == pytest.approx(told["psnr"])
    assert plain["in_between"] == 0


@pytest.mark.parametrize(("curve", "name"), [(16, "PQ"), (18, "HLG"), (None, None)])
def test_hdr_is_said(
    run: Run, tmp_path: Path, write_video: Any, caplog: Any, curve: int, name: str
) -> None:
    path = write_video(tmp_path / "a.mp4", 3, pixel_format="yuv420p10le", transfer=curve)
    assert run(input=path) == 0
    assert report(tmp_path / "out")["hdr"] == name
    assert [f"is HDR ({name})" in record.getMessage() for record in caplog.records] == (
        [True] if name else []
    )


@pytest.fixture
def stray(tmp_path_factory: pytest.TempPathFactory, write_sound: Any, write_video: Any) -> Path:
    """A folder of things that are no videos."""
    folder = tmp_path_factory.mktemp("stray")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video\n" * 100)
    write_sound(folder / "sound.mp4")
    write_video(folder / "frameless.mkv", 0, container="matroska", codec="ffv1")
    return folder


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("input", "missing.mp4", r"missing\.mp4: No such file"),
        ("input", "empty.mp4", r"empty\.mp4: "),
        ("input", "text.mp4", r"text\.mp4: no format that ffmpeg knows"),
        ("input", "sound.mp4", r"sound\.mp4: no moving picture"),
        ("input", "frameless.mkv", r"frameless\.mkv: (not one frame|the file is empty|no format)"),
        ("input", "", ": Is a directory"),
        ("model", "", "has no config.json"),
        ("model", "missing", "no such folder"),
        ("output", "", "exists already; name a new folder"),
        ("output", "text.mp4", "exists already; name a new folder"),
        ("output", "text.mp4/out", "cannot write"),
    ],
)
def test_paths_that_are_refused(
    run: Run, stray: Path, tmp_path: Path, capsys: Any, option: str, value: str, message: str
) -> None:
    before = sorted(stray.rglob("*"))
    capsys.readouterr()
    assert run(**{option: stray / value}) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    assert "Traceback" not in "".join(lines)
    assert re.search(message, lines[-1])
    assert sorted(stray.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("frames", "5:2", "END must be larger"),
        ("frames", "some", "write for example"),
        ("frames", "0:21", "the video has 20"),
        ("frames", "25:", "the video has 20"),
        ("rate", "1", "rate '1' is not a number above 1"),
        ("rate", "fast", "such as 2, 2.5 or 5/2"),
        ("points_per_pass", 0, "points_per_pass is 0"),
        ("batch", 0, "batch is 0"),
        ("device", "cuda:99", "device cuda:99 cannot be used"),
        ("device", "nonsense", "device nonsense cannot be used"),
    ],
)
def test_options_that_are_refused(
    run: Run, tmp_path: Path, capsys: Any, option: str, value: object, message: str
) -> None:
    assert run(**{option: value}) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_gives_no_numbers(run: Run, export: Path, tmp_path: Path, capsys: Any) -> None:
    model = CoordTok.from_pretrained(export)
    torch.nn.init.constant_(model.decoder.head.weight, 3e38)  # finite, but what it makes is not
    broken = tmp_path / "broken"
    card = Card(CONFIG, TokenizerSettings(12), Origin("raw"))
    write_export(broken, card, model.state_dict())
    assert run(model=broken) == 2
    assert "is not finite" in capsys.readouterr().err.splitlines()[-1]
    shutil.rmtree(broken)
    assert list(tmp_path.iterdir()) == []


def test_as_a_command(export: Path, film: Path, tmp_path: Path) -> None:
    options = ["--model", export, "--input", film, "--output", tmp_path / "a"]
    done = finish("reconstruct.py", *options)
    assert done.stdout().startswith(f"{tmp_path}/a: 20 frames of 16 x 24, PSNR ")
    assert "20/20" in done.stderr()  # the progress bar
