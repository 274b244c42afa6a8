import dataclasses

import pytest
import torch

from coordtok.benchmarks.bench_decode import distinct_settings, first_clips, measure_decoding
from coordtok.benchmarks.bench_in_between import ROWS, measure_in_between, scores_of
from coordtok.config.models import TokenizerModelConfig
from coordtok.errors import ConfigError, DataError
from coordtok.evaluation.metrics import psnr
from coordtok.geometry.pixels import from_uint8
from coordtok.models.tokenizer import CoordTok
from data_prep.build_shards import build
from data_prep.options import BuildOptions, RunOptions

CONFIG = TokenizerModelConfig(
    frames=8,
    height=32,
    width=32,
    video_patch=(4, 8, 8),
    plane_size=(4, 4, 4),
    plane_patch=(2, 2, 2),
    plane_channels=4,
    decoder_patch=(1, 8, 8),
    dim=16,
    heads=2,
    video_layers=1,
    plane_layers=1,
    decoder_layers=1,
)


@pytest.fixture(scope="module")
def model() -> CoordTok:
    torch.manual_seed(0)
    made = CoordTok(CONFIG).eval()
    made.points_per_pass = 32
    return made


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, write_video) -> str:
    """Two samples, of 24 and of 9 frames."""
    folder = tmp_path_factory.mktemp("shards")
    for name, frames in (("a", 24), ("b", 9)):
        write_video(folder / "videos" / f"{name}.mp4", frames)
    size = {"height": 32, "width": 32, "clip_frames": 8, "clips_per_segment": 3}
    options = BuildOptions(str(folder / "videos"), str(folder / "out"), codec="raw", **size)
    build(options, RunOptions(1, "local", None))
    return str(folder / "out")


def test_settings_are_different_cuts_of_a_clip(model: CoordTok) -> None:
    found = [(each.grouping, each.points_per_pass) for each in distinct_settings(model)]
    assert found == [
        ("strided", 16),
        ("random", 16),
        ("strided", 32),
        ("contiguous", 32),
        ("random", 32),
        ("strided", 64),
        ("contiguous", 64),
        ("random", 64),
        ("strided", 128),
    ]
    shares = {each[:2]: each.share_of_a_frame for each in distinct_settings(model)}
    assert shares["strided", 16] == 1 / 8
    assert shares["contiguous", 64] == 1 / 2
    assert 0.5 < shares["random", 16] <= 1


def test_every_field_of_the_report_is_measured(model: CoordTok, shards: str) -> None:
    report = measure_decoding(model, shards, 5, [32], seed=0)
    assert report.figures["settings"]["clips"] == 2
    rows = {row["grouping"]: row for row in report.figures["decode"]}
    assert list(rows) == ["strided", "contiguous", "random"]
    scores = []
    for batch in first_clips(shards, model, 5, seed=0):
        pixels = model.decode(model.encode(batch.data["video"]))
        scores.append(psnr(pixels[0], from_uint8(batch.data["video"])[0]))
    assert rows["strided"]["psnr"] == pytest.approx(sum(scores) / 2, abs=1e-4)
    for row in rows.values():
        assert row["ms_per_clip"] > 0
        assert row["ms_per_frame"] > 0
        assert row["grouping"] in report.text
    assert "2 clips of " in report.text


def test_in_between_frames_are_measured_on_long_samples(model: CoordTok, shards: str) -> None:
    report = measure_in_between(model, shards, 5, seed=0)
    assert report.figures["settings"]["clips"] == 1  # the other has 9 frames, not 15
    assert set(report.figures["in_between"]) == set(ROWS)
    assert all(text in report.text for text in ROWS.values())
    long = CoordTok(dataclasses.replace(CONFIG, frames=16, plane_size=(8, 4, 4)))
    with pytest.raises(DataError, match="has no readable sample of 31 frames; build shards with"):
        measure_in_between(long, shards, 5, seed=0)


def test_each_row_is_what_it_says(model: CoordTok) -> None:
    film = torch.randint(0, 256, (15, 32, 32, 3), dtype=torch.uint8)
    film[1::2] = film[:-1:2]  # what was left out equals the frame before it
    scores = scores_of(model, film)
    decoded = model.decode(model.encode(film[None, ::2]))[0]
    kept = from_uint8(film[::2])
    assert scores["encoded"] == pytest.approx(psnr(decoded, kept))
    assert scores["held"] == pytest.approx(psnr(decoded[:-1], kept[:-1]))
    blend = (kept[1:] + kept[:-1]) / 2
    assert scores["blended_source"] == pytest.approx(psnr(blend, kept[:-1]))


@pytest.mark.parametrize(
    ("clips", "sizes", "message"),
    [(0, None, "--clips 0: it must be at least 1"), (1, [0], "points_per_pass is 0")],
)
def test_what_cannot_be_measured(model, shards, clips, sizes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        measure_decoding(model, shards, clips, sizes, seed=0)
