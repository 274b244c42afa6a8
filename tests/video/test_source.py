import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coordtok.video.codec import UnreadableVideo
from coordtok.video.source import (
    Anchor,
    DamageInThreads,
    open_video,
    resize_and_crop,
    why_no_video,
)


def greys(video, fps=None):
    """The numbers of a test video's frames, read from their bottom right corner."""
    return [round((int(frame[-1, -1, 0]) - 20) / 5) for frame in video.frames(fps)]


def corners(frame):
    """Which corner of a frame is red: (row, column), 0 or -1."""
    places = [(y, x) for y in (0, -1) for x in (0, -1)]
    return [place for place in places if frame[place][0] > 200]


CONTAINERS = [
    ("mp4", "libx264", "yuv420p"),
    ("avi", "mpeg4", "yuv420p"),
    ("matroska", "libx264", "yuv444p"),
    ("webm", "libvpx", "yuv420p"),
    ("mpegts", "mpeg2video", "yuv420p"),
    ("mov", "mjpeg", "yuvj420p"),
    ("flv", "flv1", "yuv420p"),
]


@pytest.mark.parametrize(("container", "codec", "pixel_format"), CONTAINERS)
def test_every_container_gives_every_frame(tmp_path, write_video, container, codec, pixel_format):
    path = tmp_path / "video"
    write_video(path, 20, container=container, codec=codec, pixel_format=pixel_format)
    video = open_video(path)
    assert video.fps == 24
    for _ in range(2):
        np.testing.assert_allclose(greys(video), range(20), atol=1)


@pytest.mark.parametrize(("container", "codec", "pixel_format"), CONTAINERS)
def test_a_window_is_the_same_frames_of_a_full_decode(
    tmp_path, write_video, container, codec, pixel_format
):
    path = tmp_path / "video"
    write_video(path, 70, container=container, codec=codec, pixel_format=pixel_format)
    video = open_video(path)
    frames, (count, anchors) = list(video.frames()), video.survey()
    assert count == len(frames) == 70
    assert anchors[0].number == 0
    for start, length in [(0, 3), (11, 5), (anchors[-1].number, 2), (66, 4)]:
        window = list(video.window(start, length, anchors))
        np.testing.assert_array_equal(window, frames[start : start + length])
    with pytest.raises(UnreadableVideo, match="ends after 70 frames"):
        list(video.window(66, 5, anchors))


def test_a_place_that_seeking_does_not_find_is_reached_from_the_beginning(tmp_path, write_video):
    video = open_video(write_video(tmp_path / "a.mp4", 40))
    (window,) = video.window(30, 1, [Anchor(0, 0), Anchor(25, 10**9)])
    np.testing.assert_array_equal(window, list(video.frames())[30])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
def test_frames_are_upright_rgb(tmp_path, write_video, threads, pixel_format):
    path = write_video(tmp_path / "a.mp4", pixel_format=pixel_format)
    frames = list(open_video(path, threads).frames())
    assert [int(frame[-5, -5].min()) for frame in frames] == pytest.approx(
        [20 + 5 * number for number in range(20)], abs=1
    )
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    assert all(np.abs(frame[5, 5].astype(int) - (220, 30, 30)).max() <= 1 for frame in frames)


@pytest.mark.parametrize(
    ("rotation", "corner"), [(90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1)), (0, (0, 0))]
)
def test_rotation_metadata_is_applied(tmp_path, write_video, rotation, corner):
    video = open_video(write_video(tmp_path / "a.mp4", rotation=rotation))
    frame = next(video.frames())
    assert corners(frame) == [corner]
    assert frame.shape == ((64, 48, 3) if rotation % 180 else (48, 64, 3))


@pytest.mark.parametrize(("aspect", "width"), [("2", 128), ("1/2", 32), ("16/15", 68), ("99", 64)])
def test_pixels_become_square(tmp_path, write_video, aspect, width):
    video = open_video(write_video(tmp_path / "a.mp4", pixel_aspect=Fraction(aspect)))
    assert next(video.frames()).shape == (48, width, 3)


def test_odd_sizes(tmp_path, write_video):
    video = open_video(write_video(tmp_path / "a.mp4", height=37, width=51))
    assert [frame.shape for frame in video.frames()] == [(37, 51, 3)] * 20


def test_uneven_time_gives_every_frame_once(tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4", 6, rate=10, times=[0, 1, 5, 6, 7, 12])
    assert greys(open_video(path)) == [0, 1, 2, 3, 4, 5]


def test_uneven_time_at_a_steady_rate_holds_frames(tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4", 6, rate=10, times=[0, 1, 5, 6, 7, 12])
    assert greys(open_video(path), Fraction(10))[:13] == [0, 1, 1, 1, 1, 2, 3, 4, 4, 4, 4, 4, 5]


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(24, list(range(20))), (48, [n // 2 for n in range(40)]), (12, list(range(1, 20, 2)))],
)
def test_a_steady_rate_drops_and_repeats(tmp_path, write_video, fps, expected):
    numbers = greys(open_video(write_video(tmp_path / "a.mp4")), Fraction(fps))
    assert len(numbers) == len(expected)
    assert np.abs(np.subtract(numbers, expected)).max() <= 1


def test_a_broken_clock_is_refused_at_a_steady_rate(tmp_path, write_video):
    path = write_video(tmp_path / "a.mp4", 3, times=[0, 1, 24 * 3600])
    assert greys(open_video(path)) == [0, 1, 2]
    with pytest.raises(UnreadableVideo, match="clock"):
        greys(open_video(path), Fraction(24))


def test_sound_with_or_without_a_cover_is_no_film(tmp_path, write_sound):
    for cover in (False, True):
        with pytest.raises(UnreadableVideo, match="no moving picture"):
            open_video(write_sound(tmp_path / f"{cover}.m4a", cover))


def test_what_is_no_video_is_one_line(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello " * 100)
    for name in ("missing.mp4", "empty.mp4", "text.mp4", ""):
        with pytest.raises(UnreadableVideo) as caught:
            open_video(tmp_path / name)
        assert str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_picture_that_stands_still_in_theora(threads):
    """Its packets after the first frame are empty: `ffmpeg -f lavfi -i color=red:s=32x32:r=24
    -frames:v 12 -g 64 -c:v libtheora still.ogv`."""
    path = Path(__file__).parents[1] / "fixtures/still.ogv"
    assert len(list(open_video(path, threads).frames())) == 12
    assert len(list(open_video(path, threads).frames(Fraction(12)))) == 6


def cut(path, part):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    return path


@pytest.mark.parametrize("container", ["mp4", "matroska"])
@pytest.mark.parametrize("sound", [False, True])
@pytest.mark.parametrize("part", [0.3, 0.7])
def test_a_file_cut_short_is_refused(tmp_path, write_video, container, sound, part):
    kept = {"container": container, "sound": sound and container != "mp4"}
    path = cut(write_video(tmp_path / "a", 60, **kept), part)
    with pytest.raises(UnreadableVideo):
        list(open_video(path).frames())


def test_what_comes_before_the_cut_can_be_kept(tmp_path, write_video):
    path = cut(write_video(tmp_path / "a", 60, container="matroska", sound=True), 0.5)
    video = open_video(path, keep_damaged=True)
    kept = greys(video)
    assert 20 < len(kept) < 40
    np.testing.assert_allclose(kept, [number % 40 for number in range(len(kept))], atol=1)
    assert f"cut off: {len(kept)} of about 60 frames" in video.damage
    with pytest.raises(DamageInThreads, match="cut off"):
        list(open_video(path, 3, keep_damaged=True).frames())


@pytest.fixture
def damaged(tmp_path, write_video):
    path = write_video(
        tmp_path / "a.avi", 60, container="avi", codec="mpeg4", pixel_format="yuv420p"
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : 2 * len(data) // 3] = bytes(len(data) // 3)
    path.write_bytes(data)
    return path


def test_damage_in_the_middle_is_refused(damaged):
    with pytest.raises(UnreadableVideo, match=r"damaged|cut off"):
        list(open_video(damaged).frames())
    with pytest.raises(DamageInThreads):
        list(open_video(damaged, 3).frames())


def test_a_pipe_and_a_device_are_no_videos(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", "/dev/zero"):
        with pytest.raises(UnreadableVideo, match="no regular file"):
            open_video(path)


def test_videos_are_told_by_their_contents(tmp_path, write_video, write_sound):
    write_video(tmp_path / "video.txt", container="flv", codec="flv1", pixel_format="yuv420p")
    assert why_no_video(tmp_path / "video.txt") is None
    (tmp_path / "text.txt").write_text("torch==2.8.0\nnumpy==2.3.3\n" * 9)  # to ffmpeg's tty a film
    assert "no format" in why_no_video(tmp_path / "text.txt")
    write_sound(tmp_path / "sound.mp4")
    assert "only sound" in why_no_video(tmp_path / "sound.mp4")
    Image.new("RGB", (32, 32)).save(tmp_path / "picture.jpg")
    assert "single picture" in why_no_video(tmp_path / "picture.jpg")


def test_a_playlist_opens_no_other_file(tmp_path, write_video):
    target = write_video(tmp_path / "a.ts", container="mpegts")
    path = tmp_path / "list.m3u8"
    path.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:5,\nfile://{target}\n#EXT-X-ENDLIST"
    )
    with pytest.raises(UnreadableVideo):
        list(open_video(path).frames())


NAMES = [
    "with space.mp4",
    'it\'s "quoted".mp4',
    "new\nline.mp4",
    "фильм 映画.mp4",
    "http:x.mp4",
    "%03d",
]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"latin\xe9.mp4")])
def test_any_name_opens(tmp_path, write_video, name):
    assert len(list(open_video(write_video(tmp_path / name, 3)).frames())) == 3


@pytest.mark.parametrize(
    ("rows", "columns", "height", "width"),
    [(48, 64, 16, 16), (64, 48, 16, 16), (37, 51, 16, 24), (5, 7, 16, 16), (16, 16, 16, 16)],
)
@pytest.mark.parametrize("resample", ["bicubic", "area"])
def test_resizing_gives_the_asked_size(rows, columns, height, width, resample):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (rows, columns, 3)).astype(np.uint8)
    resized = resize_and_crop(picture, height, width, resample)
    assert resized.shape == (height, width, 3)
    assert resized.dtype == np.uint8


def test_a_picture_of_the_right_size_is_untouched():
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    np.testing.assert_array_equal(resize_and_crop(picture, 16, 16), picture)


def test_the_crop_is_central_and_the_short_side_fits():
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, 20:60] = 255
    assert (resize_and_crop(picture, 20, 20, "area") == 255).all()
    whole = Image.fromarray(picture).resize((40, 20), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize_and_crop(picture, 20, 20), np.asarray(whole)[:, 10:30])
