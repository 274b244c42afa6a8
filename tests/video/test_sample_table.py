"""Tables of mp4 files: those of the builder's as ffmpeg reads them, others left to ffmpeg."""

import io
import random
from contextlib import suppress
from fractions import Fraction

import av
import numpy as np
import pytest

from coordtok.video import decoding
from coordtok.video.codec import UnreadableVideo, encode_h264, open_mp4
from coordtok.video.decoding import decode_frames
from coordtok.video.sample_table import read_sample_table


def moving_picture(frames=40, height=32, width=48):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.stack([np.roll(picture, number, axis=1) for number in range(frames)])


def stored(frames=40, gop=7):
    return encode_h264(
        moving_picture(frames), crf=18, gop=gop, pixel_format="yuv444p", fps=Fraction(25)
    )


def encoded(options=None, bframes=0, streams=1):
    """An mp4 by ffmpeg's own choices."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options=options or {}) as container:
        added = [container.add_stream("libx264", rate=25) for _ in range(streams)]
        for stream in added:
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            stream.options = {"x264-params": f"bframes={bframes}:threads=1:b-adapt=0"}
        for pixels in moving_picture():
            for stream in added:
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(picture))
        for stream in added:
            container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize("frames", [1, 40])
def test_the_table_is_what_ffmpeg_reads(frames):
    data = stored(frames)
    table = read_sample_table(data)
    with open_mp4(data) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert table.settings == stream.codec_context.extradata
    assert table.offsets.tolist() == [packet.pos for packet in packets]
    assert table.sizes.tolist() == [packet.size for packet in packets]
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert table.keys.tolist() == keys
    assert table.size == (32, 48)
    for frame in range(frames):
        assert table.key_before(frame) == max(key for key in keys if key <= frame)


@pytest.mark.parametrize("window", [(0, 40), (0, 1), (39, 1), (6, 1), (7, 8), (13, 20)])
def test_windows_are_those_of_ffmpeg(window, monkeypatch):
    data = stored()
    found = decode_frames(data, *window)
    monkeypatch.setattr(decoding, "read_sample_table", lambda data: None)
    assert np.array_equal(found, decode_frames(data, *window))


def test_chunks_of_several_frames_are_followed():
    """ffmpeg begins a new chunk where the tracks of a file alternate, and after a megabyte."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (12, 256, 256, 3), dtype=np.uint8)
    data = encode_h264(noise, crf=1, gop=4, pixel_format="yuv444p", fps=Fraction(25))
    at = data.rindex(b"stco")
    assert int.from_bytes(data[at + 8 : at + 12], "big") > 1
    table = read_sample_table(data)
    with open_mp4(data) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert table.offsets.tolist() == [packet.pos for packet in packets]


@pytest.mark.parametrize(
    "other",
    [
        {"bframes": 2},
        {"streams": 2},
        {"options": {"movflags": "frag_keyframe+empty_moov"}},
    ],
    ids=str,
)
def test_others_are_left_to_ffmpeg(other):
    data = encoded(**other)
    assert read_sample_table(data) is None
    assert len(decode_frames(data, 3, 20)) == 20


def changed(data, box, at, content):
    """With other bytes `at` so many after the name of its last box of that name."""
    place = data.rindex(box) + at
    return data[:place] + content + data[place + len(content) :]


def nested(depth):
    data = b""
    for _ in range(depth):
        data = (len(data) + 8).to_bytes(4, "big") + b"moov" + data
    return data


UNUSUAL = {
    "a later first frame": (b"elst", 16, b"\0\0\2\0"),
    "another rate": (b"elst", 20, b"\0\2\0\0"),
    "two edits": (b"elst", 8, b"\0\0\0\2"),
    "colours": (b"btrt", 0, b"colr"),
    "cropping": (b"btrt", 0, b"clap"),
    "two descriptions": (b"stsd", 8, b"\0\0\0\2"),
    "another description in a chunk": (b"stsc", 20, b"\0\0\0\2"),
    "key frames backwards": (b"stss", 16, b"\0\0\0\1"),
    "no first key frame": (b"stss", 12, b"\0\0\0\2"),
    "a key frame too many": (b"stss", 12, b"\0\1\0\0"),
    "a frame beyond the end": (b"stsz", 16, b"\0\1\0\0"),
    "a frame of nothing": (b"stsz", 16, b"\0\0\0\0"),
    "fewer frames in chunks": (b"stsc", 16, b"\0\0\0\1"),
    **{name.decode(): (b"udta", 0, name) for name in (b"mvex", b"sbgp", b"ctts", b"co64")},
    "64 bits of size": (b"mdat", -4, b"\0\0\0\1"),
    "another codec": (b"avc1", 0, b"hvc1"),
}


@pytest.mark.parametrize("change", UNUSUAL.values(), ids=UNUSUAL)
def test_what_is_unusual_is_left_to_ffmpeg(change):
    data = stored()
    assert read_sample_table(data) is not None
    assert read_sample_table(changed(data, *change)) is None


def test_deep_nesting_has_no_table():
    assert read_sample_table(nested(5000)) is None


@pytest.mark.parametrize(
    "change",
    [(b"stss", 0, b"free"), (b"stss", 16, b"\0\0\0\4")],
    ids=["all are key frames", "another is one"],
)
def test_key_frames_that_are_none_are_not_begun_with(change):
    data = changed(stored(), *change)
    assert read_sample_table(data) is not None
    expected = decode_frames(stored(), 0, 40)
    for start in range(0, 37, 3):
        assert np.array_equal(decode_frames(data, start, 3), expected[start : start + 3])


def test_another_size_than_the_description_says_is_ffmpeg_s_to_find():
    data = changed(stored(), b"avc1", 28, b"\0\x40\0\x40")
    assert read_sample_table(data).size == (64, 64)
    assert decode_frames(data, 5, 3, (32, 48)).shape == (3, 32, 48, 3)


@pytest.mark.parametrize("data", [b"", b"ftyp", bytes(100), b"\0\0\0\x08moov"], ids=repr)
def test_what_is_no_mp4_has_no_table(data):
    assert read_sample_table(data) is None


def test_damaged_tables_point_into_the_file_or_are_none():
    data = stored()
    rng = random.Random(0)
    begin = data.rindex(b"moov")
    for place in range(begin, len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.randrange(8)
        table = read_sample_table(bytes(damaged))
        if table is not None:
            assert table.offsets.min() >= 0
            assert (table.offsets + table.sizes).max() <= len(data)
            assert table.keys[0] == 0
            assert table.keys[-1] < len(table.sizes)
        with suppress(UnreadableVideo):
            decode_frames(bytes(damaged), 5, 2)
