import io
import tarfile
from fractions import Fraction

import numpy as np
import pytest

from coordtok.data.tars import index_tar, read_members, write_tar
from coordtok.errors import DataError
from coordtok.storage.files import write_whole
from coordtok.video.codec import encode_h264, encode_raw


def video(frames=5):
    pixels = np.random.default_rng(frames).integers(0, 256, (frames, 16, 16, 3))
    return pixels.astype(np.uint8)


def mp4(frames=5):
    return encode_h264(video(frames), crf=20, gop=4, pixel_format="yuv444p", fps=Fraction(24))


def make_tar(path, members):
    buffer = io.BytesIO()
    write_tar(buffer, members)
    write_whole(path, buffer.getvalue())
    return path


def test_members_lie_where_the_index_says(tmp_path):
    clip = mp4()
    members = [("a.mp4", clip), ("a.json", b"{}"), ("b.npy", encode_raw(video(3)))]
    path = make_tar(tmp_path / "s.tar", members)
    entry = index_tar(path)
    assert [(s.key, s.frames, sorted(s.files)) for s in entry.samples] == [
        ("a", 5, ["json", "mp4"]),
        ("b", 3, ["npy"]),
    ]
    offset, size = entry.samples[0].files["mp4"]
    assert path.read_bytes()[offset : offset + size] == clip
    assert entry.bytes == path.stat().st_size


def test_the_same_members_give_the_same_bytes(tmp_path):
    first = make_tar(tmp_path / "1.tar", [("a.mp4", b"x")])
    assert first.read_bytes() == make_tar(tmp_path / "2.tar", [("a.mp4", b"x")]).read_bytes()


def test_foreign_members_are_left_out_and_broken_videos_count_no_frames(tmp_path):
    members = [("README", b"hello"), ("x/a.txt", b""), ("x/b.mp4", b"broken"), ("c.npy", b"broken")]
    entry = index_tar(make_tar(tmp_path / "s.tar", members))
    assert [(s.key, s.frames) for s in entry.samples] == [("x/b", 0), ("c", 0)]


def test_two_samples_with_one_key_are_refused(tmp_path):
    path = make_tar(tmp_path / "s.tar", [("a.mp4", b"1"), ("b.mp4", b"2"), ("a.mp4", b"3")])
    with pytest.raises(DataError, match="key 'a'"):
        index_tar(path)


def test_long_names_and_links_do_not_shift_offsets(tmp_path):
    path = tmp_path / "s.tar"
    name = "folder/" * 30 + "clip.mp4"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        header = tarfile.TarInfo(name)
        header.size = len(mp4())
        tar.addfile(header, io.BytesIO(mp4()))
    (sample,) = index_tar(path).samples
    assert sample.key == name.removesuffix(".mp4")
    assert sample.frames == 5


@pytest.mark.parametrize("cut", [0, 100, 512, 700, 1536, 2000, 2048, 2560, 2600])
def test_a_tar_cut_anywhere_is_refused(tmp_path, cut):
    path = make_tar(tmp_path / "s.tar", [("a.mp4", b"x" * 1000), ("a.json", b"{}")])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError) as caught:
        read_members(path)
    assert str(caught.value).startswith("s.tar ")
    assert "\n" not in str(caught.value)


def test_a_damaged_header_is_refused(tmp_path):
    path = make_tar(tmp_path / "s.tar", [("a.mp4", b"x" * 1000), ("a.json", b"{}")])
    data = bytearray(path.read_bytes())
    data[1540] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        read_members(path)
