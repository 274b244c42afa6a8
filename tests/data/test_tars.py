import io
import json
import tarfile
from contextlib import suppress
from fractions import Fraction
from random import Random

import numpy as np
import pytest

from coordtok.data.index import checksums_of, shard_as_dict, shard_from_dict
from coordtok.data.tars import index_tar, read_members, write_tar
from coordtok.errors import DataError
from coordtok.storage.files import write_whole
from coordtok.video.codec import encode_h264, encode_raw
from tests.support.damage import damage


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


def header(name="a.mp4", size=0, kind=tarfile.REGTYPE, **fields):
    """A header that says what it is told to, with a sum that is right."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size.to_bytes(12, "big", signed=True) if size < 0 else bytes(12)
    if size > 0:
        block[124:136] = b"\x80" + size.to_bytes(11, "big")
    for place, value in fields.items():
        at = int(place[1:])
        block[at : at + len(value)] = value
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block)


def pax(records, **fields):
    lines = b""
    for name, value in records.items():
        line = f" {name}={value}\n".encode()
        length = len(line) + len(str(len(line) + 2))
        lines += str(length).encode() + line
    padded = lines + bytes(-len(lines) % 512)
    return header("x", len(lines), tarfile.XHDTYPE, **fields) + padded


LYING = {
    "a negative size": header(size=-512),
    "a negative size back to the start": header(size=-1024) + header(size=-1024),
    "a terabyte": header(size=10**12),
    "all bits of a size": header(_124=b"\xff" * 12),
    "a name of a terabyte": header("long", 10**12, tarfile.GNUTYPE_LONGNAME),
    "an extended header of a terabyte": header("x", 10**12, tarfile.XHDTYPE),
    "an extended header of 16 MB that is there": header("x", 1 << 24, tarfile.XHDTYPE)
    + bytes(1 << 24),
    "extended headers in one another": header("x", 0, tarfile.XHDTYPE) * 5000,
    "long names of one another": header("x", 512, tarfile.GNUTYPE_LONGNAME) * 5000,
    "GNU sparse": header(size=512, kind=tarfile.GNUTYPE_SPARSE, _482=b"\1", _483=b"7" * 11),
    "pax sparse without end": pax({"GNU.sparse.major": 1, "GNU.sparse.minor": 0})
    + header(size=512)
    + b"999999999\n".ljust(512, b"0"),
    "a pax size of a terabyte": pax({"size": 10**12}) + header(size=512) + bytes(512),
    "a pax size of 5000 digits": pax({"size": "9" * 5000}) + header(size=512) + bytes(512),
    "a negative pax size": pax({"size": -1024}) + header(size=512) + bytes(512),
}  # fmt: skip


@pytest.mark.parametrize("lie", LYING)
def test_lengths_that_lie_are_one_line_or_left_out(tmp_path, lie):
    path = tmp_path / "s.tar"
    path.write_bytes(LYING[lie] + bytes(1024))
    try:
        members = read_members(path)
    except DataError as error:
        message = str(error)
        assert message.startswith("s.tar ")
        assert "\n" not in message
    else:
        assert [each for each in members if each.size] == []


@pytest.mark.parametrize("sparse", [tarfile.GNUTYPE_SPARSE, None])
def test_sparse_files_are_left_out(tmp_path, sparse):
    """Their bytes are not the file: holes are left out of them."""
    path = tmp_path / "s.tar"
    name = b"7\0".rjust(12, b"0")
    if sparse:
        lie = header(size=7, kind=sparse, _386=name, _398=name, _483=b"00077777777")
    else:
        records = {"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.realsize": 10**12}
        lie = pax({**records, "GNU.sparse.name": "a.mp4"}) + header(size=512)
    path.write_bytes(lie + b"1\n0\n7\n".ljust(512, b"\0") + header("b.mp4") + bytes(1024))
    assert [each.name for each in read_members(path)] == ["b.mp4"]


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))]
)
def test_damaged_tars_are_one_line_or_an_index_that_can_be_read(tmp_path, seed):
    rng = Random(seed)
    members = [("a.mp4", mp4()), ("a.json", b"{}"), ("b.npy", encode_raw(video(3)))]
    whole = make_tar(tmp_path / "s.tar", members).read_bytes()
    for _ in range(25):
        path = tmp_path / "s.tar"
        path.write_bytes(damage("s.tar", whole, rng).data)
        with suppress(DataError):
            entry = index_tar(path)
            stored = json.loads(json.dumps([shard_as_dict(entry), checksums_of(entry)]))
            assert shard_from_dict(*stored) == entry
