import io
import os
import subprocess
import sys
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest

from coordtok.errors import DataError
from coordtok.video.codec import (
    UnreadableVideo,
    count_frames,
    decode_raw,
    encode_h264,
    encode_raw,
    raw_layout,
)
from coordtok.video.decoding import decode_frames

RATE = Fraction(24)


def moving_picture(frames=40, height=48, width=64):
    """Smooth colours that drift, and a square that jumps: compressible, and no two frames alike."""
    time, row, column = np.ogrid[:frames, :height, :width]
    waves = [np.sin(row / 9 + time / 5), np.sin(column / 7 - time / 4), np.cos((row + column) / 11)]
    video = np.stack([128 + 100 * np.broadcast_to(w, (frames, height, width)) for w in waves], -1)
    for number in range(frames):
        x = number * 3 % (width - 8)
        video[number, 4:12, x : x + 8] = (number * 37 % 256, 40, 200)
    return video.clip(0, 255).astype(np.uint8)


def encode(video, **settings):
    return encode_h264(
        video, **{"crf": 18, "gop": 8, "pixel_format": "yuv444p", "fps": RATE, **settings}
    )


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2))


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
@pytest.mark.parametrize("gop", [1, 8, 250])
def test_a_window_is_bit_for_bit_the_full_decode(pixel_format, gop):
    video = moving_picture()
    data = encode(video, gop=gop, pixel_format=pixel_format)
    full = decode_frames(data, 0, len(video))
    assert full.shape == video.shape
    for start, count in [(0, 1), (0, 17), (1, 16), (7, 9), (8, 8), (23, 17), (39, 1), (15, 25)]:
        window = decode_frames(data, start, count)
        np.testing.assert_array_equal(window, full[start : start + count])


@pytest.mark.parametrize(("pixel_format", "floor"), [("yuv420p", 30), ("yuv444p", 40)])
def test_pixels_come_back_close(pixel_format, floor):
    video = moving_picture()
    decoded = decode_frames(encode(video, pixel_format=pixel_format), 0, len(video))
    assert psnr(decoded, video) > floor


@pytest.mark.parametrize("height", [16, 34, 48])
def test_pixels_are_rounded_exactly_wherever_they_are(height):
    video = moving_picture(height=height)
    data = encode(video)
    with av.open(io.BytesIO(data)) as container:
        planes = np.stack([frame.to_ndarray() for frame in container.decode(video=0)], 1)
    y, u, v = planes.astype(float) - np.reshape([16, 128, 128], (3, 1, 1, 1))
    luma, u, v = y * 255 / 219, u * 255 / 224, v * 255 / 224
    # BT.709, ITU-R recommendation, item 3: limited range
    rgb = np.stack([luma + 1.5748 * v, luma - 0.187324 * u - 0.468124 * v, luma + 1.8556 * u], -1)
    decoded = decode_frames(data, 0, len(video))
    error = decoded - rgb.clip(0, 255)
    assert np.abs(error).max() < 0.6
    assert abs(error.mean()) < 0.02


def test_plain_colours_come_back():
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 30, 120)]
    video = np.stack([np.broadcast_to(np.uint8(c), (32, 32, 3)) for c in colours])
    for pixel_format in ("yuv420p", "yuv444p"):
        decoded = decode_frames(encode(video, pixel_format=pixel_format, crf=4), 0, len(video))
        assert np.abs(decoded.astype(int) - video).max() <= 4


def test_a_better_crf_is_better_and_larger():
    video = moving_picture()
    good, poor = encode(video, crf=10), encode(video, crf=35)
    assert len(good) > len(poor)
    assert psnr(decode_frames(good, 0, 40), video) > psnr(decode_frames(poor, 0, 40), video) + 3


@pytest.mark.parametrize("fps", ["24", "30000/1001", "1/7", "14315001/596458", "1000000"])
@pytest.mark.parametrize("frames", [1, 2, 3, 17])
def test_any_rate_and_length_keeps_every_frame(fps, frames):
    data = encode(moving_picture(frames, 16, 16), fps=Fraction(fps))
    assert count_frames(data) == frames
    assert len(decode_frames(data, 0, frames)) == frames


def test_odd_sizes_keep_their_size_in_444():
    video = moving_picture(5, 33, 47)
    decoded = decode_frames(encode(video), 0, 5, (33, 47))
    assert decoded.shape == video.shape
    assert psnr(decoded, video) > 35


ENCODE_IN_A_FRESH_PROCESS = """
import hashlib, sys
import numpy as np
from fractions import Fraction
from coordtok.video.codec import encode_h264
video = np.load(sys.argv[1])
for pixel_format in ("yuv420p", "yuv444p"):
    settings = {"crf": 18, "gop": 8, "pixel_format": pixel_format, "fps": Fraction(24)}
    print(hashlib.sha256(encode_h264(video, **settings)).hexdigest())
"""


def test_the_same_frames_give_the_same_bytes_whatever_lay_in_memory_before(tmp_path):
    path = tmp_path / "video.npy"
    np.save(path, moving_picture())
    outputs = set()
    for filling in ("0", "1", "200"):
        environment = {**os.environ, "MALLOC_PERTURB_": filling}
        command = [sys.executable, "-c", ENCODE_IN_A_FRESH_PROCESS, str(path)]
        outputs.add(subprocess.check_output(command, env=environment))
    assert len(outputs) == 1


@pytest.mark.parametrize(("start", "count"), [(0, 41), (40, 1), (30, 11), (-1, 3), (0, 0)])
def test_frames_it_does_not_have_are_refused(start, count):
    with pytest.raises(UnreadableVideo, match="of a video of 40"):
        decode_frames(encode(moving_picture()), start, count)


def test_frames_of_another_size_are_refused_before_there_is_room_for_them():
    data = encode(moving_picture(20, 256, 256))
    assert decode_frames(data, 0, 20, (256, 256)).shape == (20, 256, 256, 3)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableVideo, match="its frames are 256 x 256, not 16 x 32"):
            decode_frames(data, 0, 20, (16, 32))
        assert tracemalloc.get_traced_memory()[1] < 256 * 256 * 3
    finally:
        tracemalloc.stop()


def encode_pictures_of_two_sizes():
    """Three pictures of 16 x 32, as the mp4 says, and three of 256 x 256."""
    settings = {"x264-params": "bframes=0:threads=1"}
    other = av.CodecContext.create("libx264", "w")
    other.width, other.height, other.pix_fmt = 256, 256, "yuv420p"
    other.time_base, other.options = 1 / RATE, settings
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.options = 32, 16, "yuv420p", settings
        packets = []
        for codec, height, width in [(stream, 16, 32), (other, 256, 256)]:
            for pixels in moving_picture(3, height, width):
                packets += codec.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24"))
            packets += codec.encode(None)
        for number, packet in enumerate(packets):
            packet.stream, packet.time_base = stream, 1 / RATE
            packet.pts = packet.dts = number
            container.mux(packet)
    return buffer.getvalue()


def test_a_picture_of_another_size_than_its_video_says_is_refused():
    data = encode_pictures_of_two_sizes()
    assert decode_frames(data, 0, 3, (16, 32)).shape == (3, 16, 32, 3)
    with pytest.raises(UnreadableVideo, match="its frames are 256 x 256, not 16 x 32"):
        decode_frames(data, 3, 3, (16, 32))
    with pytest.raises(UnreadableVideo, match="its size changes"):
        decode_frames(data, 2, 3, (16, 32))


def test_damage_is_one_line():
    data = encode(moving_picture())
    body = data.index(b"mdat")
    flipped = bytearray(data)
    flipped[body + 1500 : body + 3000] = bytes(1500)
    for damaged in (b"", b"no video", data[: len(data) // 2], data[:200], bytes(flipped)):
        with pytest.raises(UnreadableVideo) as caught:
            decode_frames(damaged, 0, 40)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, DataError)


PLAYLISTS = {
    "ffconcat": "ffconcat version 1.0\nfile {name}\n",
    "absolute ffconcat": "ffconcat version 1.0\nfile 'file:{path}'\n",
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:5,\nfile://{path}\n#EXT-X-ENDLIST",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch, kind):
    path = tmp_path / "secret.mp4"
    path.write_bytes(encode(moving_picture()))
    monkeypatch.chdir(tmp_path)
    data = PLAYLISTS[kind].format(name=path.name, path=path).encode()
    with pytest.raises(UnreadableVideo, match="not a readable video"):
        decode_frames(data, 0, 1)
    with pytest.raises(UnreadableVideo, match="not a readable video"):
        count_frames(data)


def test_counting_a_file_that_is_no_video_is_refused():
    with pytest.raises(UnreadableVideo):
        count_frames(b"RIFF....")


def test_raw_frames_survive():
    video = moving_picture(5, 6, 7)
    data = encode_raw(video[:, :, ::-1])
    shape, offset = raw_layout(data[:256], len(data))
    assert shape == (5, 6, 7, 3)
    assert data[offset : offset + 3] == video[0, 0, -1].tobytes()
    np.testing.assert_array_equal(decode_raw(data), video[:, :, ::-1])
    np.testing.assert_array_equal(np.load(io.BytesIO(data)), video[:, :, ::-1])


def npy(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"not a file of numpy",
        npy(np.zeros((2, 3, 4, 3), np.float32)),
        npy(np.zeros((2, 3, 4), np.uint8)),
        npy(np.zeros((0, 3, 4, 3), np.uint8)),
        npy(np.asfortranarray(np.zeros((2, 3, 4, 3), np.uint8))),
        npy(np.array([{"run": "me"}]), allow_pickle=True),
        npy(np.zeros((2, 3, 4, 3), np.uint8))[:-1],
    ],
)
def test_raw_files_of_anything_else_are_refused(data):
    with pytest.raises(UnreadableVideo):
        decode_raw(data)
