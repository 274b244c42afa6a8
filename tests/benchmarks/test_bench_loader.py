from pathlib import Path

import numpy as np
import pytest

from coordtok.benchmarks.bench_loader import BASELINE, PLANES, loader_report, measure_loader
from coordtok.benchmarks.bench_resume import measure_resume
from coordtok.benchmarks.loader_sides import ClipSettings, FullSizeVideo, Shards, first_windows
from coordtok.benchmarks.loader_videos import make_sources, sample_videos
from coordtok.benchmarks.plain_loader import cut_patches, decode_only, exact_window, read_window
from coordtok.data.shards import open_shards
from coordtok.errors import ConfigError, DataError
from data_prep.build_shards import build
from data_prep.options import BuildOptions, RunOptions

SETTINGS = ClipSettings(clips=2, size=(8, 32, 32), patch=(1, 8, 8), points=16)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, write_video) -> Path:
    """Full-size videos of 24 frames: pictures that tell their number."""
    folder = tmp_path_factory.mktemp("videos")
    inputs = [write_video(folder / "in" / f"{number}.mp4", 20 + 30 * number) for number in (0, 1)]
    (out := folder / "out").mkdir()
    assert len(make_sources(inputs, out, 24)) == 3  # one is repeated, one makes two
    return out


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, videos: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("shards")
    size = {"height": 32, "width": 32, "clip_frames": 8, "clips_per_segment": 3}
    for codec in ("h264", "raw"):
        options = BuildOptions(
            str(videos), str(folder / codec), codec=codec, samples_per_shard=8, **size
        )
        build(options, RunOptions(1, "local", None))
    return {codec: str(folder / codec) for codec in ("h264", "raw")}


def test_every_field_of_the_report_is_measured(videos: Path, shards: dict[str, str]) -> None:
    figures = measure_loader(videos, shards, SETTINGS)
    assert list(figures) == [BASELINE, PLANES, "h264", "raw"]
    assert figures[PLANES]["psnr_to_source_db"] == figures["h264"]["psnr_to_source_db"]
    for each in figures.values():
        assert len(each["ms_of_each_clip"]) == SETTINGS.clips
        assert each["ms_per_clip"] > 0
        assert each["clips_per_s"] > 0
        assert each["ms_per_clip"] >= each["clip_alone_ms"] > 0
        assert each["bare_ms_per_clip"] > 0
        assert each["ratio_to_floor"] > 0
    assert figures[BASELINE]["ratio_to_baseline"] == 1
    assert figures["raw"]["psnr_to_source_db"] is None
    assert figures["h264"]["psnr_to_source_db"] > 35
    resume = {"seconds": 0.5, "of_which_reading_the_index": 0.2, "samples": 9000, "position": 8000}
    report = loader_report(SETTINGS, figures, resume)
    assert "raw" in report.text
    assert "clip 8,000 of an epoch of 9,000 in 0.50 s" in report.text
    assert set(report.figures) == {"settings", "loader", "resume"}


def test_all_sides_read_the_same_windows(videos: Path, shards: dict[str, str]) -> None:
    raw = open_shards(shards["raw"])
    windows = first_windows(raw, videos, SETTINGS, 5)
    assert len({window.start_in_video for window in windows}) > 1
    assert windows == first_windows(open_shards(shards["h264"]), videos, SETTINGS, 5)
    ours, baseline = Shards(raw, SETTINGS), FullSizeVideo(SETTINGS)
    for window in windows:
        exact = exact_window(window.video, window.start_in_video, SETTINGS.size)
        found, plain = (side.output(side.read(window), window) for side in (ours, baseline))
        np.testing.assert_array_equal(found.video_THW3, exact)
        patches = cut_patches(exact, SETTINGS.draw(window.id), SETTINGS.patch)
        np.testing.assert_array_equal(found.patches_NP3, patches)
        # Scaled as a whole and cropped by whole pixels: not the same, but the same frames.
        for got, wanted in ((plain.video_THW3, exact), (plain.patches_NP3, patches)):
            assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        distance = np.abs(plain.video_THW3.astype(int)[:, None] - exact[None]).mean((2, 3, 4))
        np.testing.assert_array_equal(distance.argmin(1), np.arange(SETTINGS.size[0]))


def test_the_floor_decodes_the_windows_own_frames(videos: Path) -> None:
    video = min(videos.iterdir())
    for start in (0, 1, 11, 12, 16):
        assert decode_only(video, start, 8) == 8
        assert read_window(video, start, (8, 32, 32)).shape == (8, 32, 32, 3)


def test_shards_of_other_videos_are_noticed(
    tmp_path: Path, videos: Path, shards: dict[str, str]
) -> None:
    other = tmp_path / "videos"
    other.mkdir()
    names = sorted(each.name for each in videos.iterdir())
    for name, source in zip(names, [*names[1:], names[0]]):
        (other / name).symlink_to(videos / source)
    with pytest.raises(DataError, match="dB from its source, not at least 20 dB"):
        measure_loader(other, shards, SETTINGS)


def test_resuming_late_in_an_epoch_is_timed(tmp_path: Path) -> None:
    found = measure_resume(tmp_path, samples=100, lanes=2)
    assert found["samples"] == 96
    assert found["position"] == 2 * (3 * 12 + 6)
    assert 0 < found["of_which_reading_the_index"] < found["seconds"]


def test_too_few_samples_to_resume_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--resume-samples 7: it must be at least 8"):
        measure_resume(tmp_path, samples=7, lanes=2)


def test_a_video_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"--input .*bad.mp4: .*; name another video"):
        make_sources([tmp_path / "bad.mp4"], tmp_path, 24)


def test_sample_videos_come_from_the_package_or_from_the_user(monkeypatch) -> None:
    assert all(path.is_file() for path in sample_videos())
    monkeypatch.setattr("coordtok.benchmarks.loader_videos._SAMPLES", "no-such-package")
    with pytest.raises(DataError, match="--input VIDEO"):
        sample_videos()
