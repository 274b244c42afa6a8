import io
import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from coordtok.data.index import SampleEntry, ShardIndex, VideoSpec
from coordtok.data.loader import Batch
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.shards import open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import DataError
from coordtok.train.tasks.sending import send_batch
from coordtok.video.codec import encode_h264, encode_raw

READ = VideoWindows(frames=4, height=16, width=32)


def video(frames: int, height: int = 16, width: int = 32) -> np.ndarray:
    """Frames of one number each: 10, 15, 20 ..."""
    numbers = np.arange(frames, dtype=np.uint8) * 5 + 10
    return np.ones((frames, height, width, 3), np.uint8) * numbers[:, None, None, None]


def mp4(frames: np.ndarray) -> bytes:
    return encode_h264(frames, crf=1, gop=4, pixel_format="yuv444p", fps=Fraction(24))


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def sample(frames: int, **files: bytes) -> StoredSample:
    def read_into(ext, offset, buffer):
        buffer[:] = files[ext][offset : offset + buffer.nbytes]

    places = {ext: (512, len(content)) for ext, content in files.items()}
    return StoredSample(SampleEntry("key", frames, places), read_into)


@pytest.mark.parametrize("encode", [mp4, encode_raw])
def test_a_window_is_consecutive_frames_from_any_place(encode):
    ext = "mp4" if encode is mp4 else "npy"
    stored = sample(11, **{ext: encode(video(11))})
    for start in range(8):
        read = READ(stored, start)
        assert read["video"].shape == (4, 16, 32, 3)
        assert read["video"].dtype == np.uint8
        assert read["num_frames"] == 4
        np.testing.assert_allclose(
            read["video"].astype(int), video(11)[start : start + 4], atol=0 if ext == "npy" else 2
        )


@pytest.mark.parametrize("ext", ["mp4", "npy"])
@pytest.mark.parametrize("frames", [1, 3])
def test_a_short_sample_is_followed_by_zeros(ext, frames):
    content = (mp4 if ext == "mp4" else encode_raw)(video(frames))
    read = READ(sample(frames, **{ext: content}), 0)
    assert read["num_frames"] == frames
    assert read["video"].shape == (4, 16, 32, 3)
    assert not read["video"][frames:].any()
    assert read["video"][:frames].all()


def test_of_raw_frames_only_the_window_is_read():
    content = encode_raw(video(100))
    read_bytes = []
    stored = sample(100, npy=content)

    def read_into(ext, offset, buffer):
        read_bytes.append(buffer.nbytes)
        buffer[:] = content[offset : offset + buffer.nbytes]

    READ(StoredSample(stored.entry, read_into), 0)
    assert sum(read_bytes) <= 4 * 16 * 32 * 3 + 1024


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"class": 7}', 7),
        ('{"class": null}', -1),
        ('{"class": true}', -1),
        ('{"class": -3}', -1),
        ("{}", -1),
    ],
)
def test_labels(text, label):
    stored = sample(4, npy=encode_raw(video(4)), json=text.encode())
    assert READ(stored, 0)["label"] == label


def test_without_json_there_is_no_label():
    assert READ(sample(4, npy=encode_raw(video(4))), 0)["label"] == -1


@pytest.mark.parametrize(
    ("frames", "files", "reason"),
    [
        (4, {"npy": b""}, "npy"),
        (4, {"npy": b"\0" * 2000}, "not a .npy file"),
        (4, {"npy": encode_raw(video(4))[:-1]}, "fewer than"),
        (5, {"npy": encode_raw(video(4))}, "4 frames, its index says 5"),
        (4, {"npy": encode_raw(video(4, 32, 16))}, "32 x 16, not 16 x 32"),
        (4, {"npy": npy(video(4).astype(np.float32))}, "float32"),
        (4, {"npy": npy(np.asfortranarray(video(4)))}, "npy"),
        (4, {"npy": npy(np.array([{"a": 1}], dtype=object))}, "object"),
        (4, {"mp4": b""}, "not a readable video"),
        (4, {"mp4": b"\0" * 2000}, "not a readable video"),
        (9, {"mp4": mp4(video(4))}, "frames 5 to 9 of a video of 4"),
        (4, {"mp4": mp4(video(4))[:600]}, "readable|decode|picture"),
        (4, {"mp4": mp4(video(4, 32, 16))}, "32 x 16, not 16 x 32"),
        (0, {"mp4": mp4(video(4))}, "no frames"),
        (4, {"txt": b"x", "jpg": b"y"}, "no video, only .jpg .txt"),
        (4, {"npy": encode_raw(video(4)), "json": b"{"}, "json is damaged"),
        (4, {"npy": encode_raw(video(4)), "json": b"[1]"}, "json is damaged"),
        (4, {"npy": encode_raw(video(4)), "json": b"\xff\xfe"}, "json is damaged"),
        (4, {"npy": encode_raw(video(4)), "json": b"[" * 200_000}, "json is damaged"),
    ],
)
def test_what_cannot_be_used_is_unreadable(frames, files, reason):
    with pytest.raises(UnreadableSample, match=reason):
        READ(sample(frames, **files), max(0, frames - READ.frames))


def test_a_blank_has_the_form_of_a_window():
    window = READ(sample(4, npy=encode_raw(video(4)), json=json.dumps({}).encode()), 0)
    blank = READ.blank()
    assert blank.keys() == window.keys()
    assert blank["video"].shape == window["video"].shape
    assert blank["video"].dtype == window["video"].dtype
    assert not blank["video"].any()


def test_frames_of_another_size_than_the_model_takes(write_shards, tmp_path):
    opened = open_shards(str(write_shards(tmp_path, (1,), 1)))
    VideoWindows(100, 2, 4).check(opened.index, opened.location)
    with pytest.raises(DataError, match=rf"{tmp_path} holds frames of 2 x 4.*takes 16 x 32"):
        READ.check(opened.index, opened.location)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
@pytest.mark.parametrize("frames", [3, 9])
def test_planes_are_those_of_the_clip(pixel_format, frames):
    pictures = video(frames)
    pictures[:, 4:9, 6:20, 0] = 200
    data = encode_h264(pictures, crf=10, gop=4, pixel_format=pixel_format, fps=Fraction(24))
    stored = sample(frames, mp4=data)
    codec = {"name": "h264", "pixel_format": pixel_format}
    index = ShardIndex(VideoSpec(16, 32, 4, None), codec, 1, ())
    read = READ.as_stored([index, index])
    planes = read(stored, 0)[pixel_format]
    assert planes.nbytes == 4 * 16 * 32 * (1.5 if pixel_format == "yuv420p" else 3)
    assert read.blank()[pixel_format].shape == planes.shape
    batch = Batch({pixel_format: torch.from_numpy(planes)[None]}, (), ())
    assert np.array_equal(send_batch(batch).data["video"][0].numpy(), READ(stored, 0)["video"])
    other = replace(READ, planes="yuv420p" if pixel_format == "yuv444p" else "yuv444p")
    with pytest.raises(DataError, match=f"its planes are {pixel_format}.*data.planes=false"):
        other(stored, 0)


def test_planes_are_read_where_all_shards_hold_the_same():
    def shards(**codec):
        return ShardIndex(VideoSpec(16, 32, 4, None), codec, 1, ())

    wide, full = (shards(name="h264", pixel_format=each) for each in ("yuv420p", "yuv444p"))
    assert READ.as_stored([full]).planes == "yuv444p"
    assert READ.as_stored([wide, full]).planes is None
    assert READ.as_stored([wide, shards(name="raw")]).planes is None
    assert replace(READ, height=15).as_stored([wide]).planes is None
