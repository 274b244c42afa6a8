"""Damage to stored samples: none goes unnoticed, and one sample's is that sample's skip."""

import json
import time
import zlib
from contextlib import suppress
from fractions import Fraction
from random import Random

import numpy as np
import pytest

from coordtok.data.clip_reader import ClipReader
from coordtok.data.clips import Clip
from coordtok.data.index import CHECKSUMS, INDEX_NAME, SampleEntry, VideoSpec
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.shards import load_index, open_shards
from coordtok.data.sums import difference
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import DataError
from coordtok.storage.local import LocalStore
from coordtok.video.codec import (
    UnreadableVideo,
    count_frames,
    encode_h264,
    encode_raw,
)
from coordtok.video.decoding import decode_frames
from tests.support.damage import damage
from tests.support.damaged_shards import flip_bit, flipped_bit, forge_index
from tests.support.shards import write_tars

FRAMES, HEIGHT, WIDTH = 8, 32, 48
READ = VideoWindows(FRAMES, HEIGHT, WIDTH)
STORED = 20
CLIPS = [Clip(0, number, 0, FRAMES) for number in range(3)]
KEYS = ("moving", "raw", "still")


def video(seed: int) -> np.ndarray:
    still = np.random.default_rng(seed).integers(0, 100, (1, HEIGHT, WIDTH, 3))
    return (still + seed * np.arange(STORED)[:, None, None, None]).astype(np.uint8)


def mp4(seed: int) -> bytes:
    return encode_h264(video(seed), crf=18, gop=8, pixel_format="yuv420p", fps=Fraction(24))


@pytest.fixture
def folder(tmp_path):
    info = json.dumps({"class": 3}).encode()
    files = {"moving.mp4": mp4(5), "raw.npy": encode_raw(video(7)), "still.mp4": mp4(0)}
    members = [
        pair for name, data in files.items() for pair in ((name, data), (f"{name[:-4]}.json", info))
    ]
    return write_tars(tmp_path / "shards", [members], VideoSpec(FRAMES, HEIGHT, WIDTH, None))


def write_crc32(folder):
    """Give the index the sums of before XXH3, under their name."""
    path = folder / INDEX_NAME
    stored, tar = json.loads(path.read_text()), (folder / "part-000000.tar").read_bytes()
    sums = []
    for (_, _, files), before in zip(
        stored["shards"][0]["samples"], stored.pop(CHECKSUMS)["part-000000.tar"]
    ):
        sums.append({})
        for ext, (offset, size) in files.items():
            content = tar[offset : offset + size]
            head, frame = (size, size) if isinstance(before[ext], str) else before[ext][:2]
            pieces = [content[:head]]
            pieces += [content[at : at + frame] for at in range(head, size, frame)]
            digits = "".join(f"{zlib.crc32(piece):08x}" for piece in pieces)
            sums[-1][ext] = digits if len(pieces) == 1 else [head, frame, digits]
    path.write_text(json.dumps({**stored, "crc32": {"part-000000.tar": sums}}))


@pytest.mark.parametrize("kind", ["xxh3", "crc32"])
def test_no_flipped_bit_of_a_stored_sample_goes_unnoticed(folder, kind):
    """A bit of any file that is read, or of its tar header."""
    path = folder / "part-000000.tar"
    if kind == "crc32":
        write_crc32(folder)
    opened = open_shards(str(folder))
    rng = Random(0)
    reasons = []
    for _ in range(600):
        number, start = rng.randrange(len(KEYS)), rng.randrange(STORED - FRAMES)
        sample = opened.reader.sample(0, number)
        ext = rng.choice(sorted(sample.entry.files))
        offset, size = sample.entry.files[ext]
        with flipped_bit(path, offset - 512, offset + size, rng) as changed:
            try:
                found = READ(sample, start)
            except UnreadableSample as error:
                reasons.append(str(error))
                continue
        # A header may write its sum in other ways; of raw frames others are not read.
        assert changed < offset or ext == "npy"
        np.testing.assert_array_equal(found["video"], READ(sample, start)["video"])
    assert len(reasons) > 400
    assert {reason.partition(" ")[0] for reason in reasons} == {"checksum:", "the"}
    assert any("checksum: frame 1" in reason for reason in reasons)


def test_raw_frames_are_compared_once_while_their_shard_stays_as_it_is(folder, monkeypatch):
    path = folder / "part-000000.tar"
    compared = []

    def counted(sums, size, offset, content):
        compared.append(offset)
        return difference(sums, size, offset, content)

    monkeypatch.setattr("coordtok.data.member.difference", counted)
    monkeypatch.setattr("coordtok.storage.local._SETTLED_NS", 0)
    opened = open_shards(str(folder))

    def read(start):
        compared.clear()
        window = READ(opened.reader.sample(0, 1), start)
        np.testing.assert_array_equal(window["video"], video(7)[start : start + FRAMES])
        return len(compared)

    # Their sample's .json each time, the header and frames of the .npy until they are known.
    assert [read(0), read(0), read(3), read(2), read(12), read(4)] == [3, 1, 2, 1, 2, 2]
    assert [read(start) for start in range(STORED - FRAMES)] == [1] * (STORED - FRAMES)
    offset, size = opened.index.shards[0].samples[1].files["npy"]
    last = offset + size - FRAMES * HEIGHT * WIDTH * 3
    for seed in range(10):
        time.sleep(0.02)  # a file's times are those of the system's clock, which ticks
        with flipped_bit(path, last, offset + size, Random(seed)):
            with pytest.raises(UnreadableSample, match="checksum: frame 1"):
                READ(opened.reader.sample(0, 1), STORED - FRAMES)
            time.sleep(0.02)
    assert [read(STORED - FRAMES), read(STORED - FRAMES)] == [3, 1]
    other = bytearray(path.read_bytes())
    other[offset + size - 1] ^= 1
    path.unlink()
    path.write_bytes(other)
    read(STORED - FRAMES)  # of the file that is open, still the old one
    opened.reader.close()
    with pytest.raises(UnreadableSample, match="checksum: frame 19"):
        READ(opened.reader.sample(0, 1), STORED - FRAMES)


def test_frames_of_a_shard_that_has_just_changed_are_compared_again(folder, monkeypatch):
    """Two changes of one tick of the clock leave the same time."""
    monkeypatch.setattr("coordtok.storage.local._SETTLED_NS", 60_000_000_000)
    store = LocalStore(str(folder))
    assert store.version("part-000000.tar") is None
    assert store.version("nothing.tar") is None


def test_a_flipped_bit_is_named_and_skipped(folder):
    opened = open_shards(str(folder))
    offset, size = opened.index.shards[0].samples[0].files["mp4"]
    with flipped_bit(folder / "part-000000.tar", offset, offset + size, Random(1)):
        for location in (str(folder), f"pipe:cat {folder}/{{name}}"):
            batch = next(iter(ClipReader(open_shards(location), CLIPS, READ, batch=len(KEYS))))
            assert batch.numbers == {1: 1, 2: 2}
            assert [str(skipped) for skipped in batch.skipped] == [
                f"moving in part-000000.tar of {location}: checksum: .mp4 is not what was "
                "indexed, it is damaged"
            ]


def test_an_index_of_before_reads_and_is_the_same_data(folder):
    new = load_index(str(folder))
    stored = json.loads((folder / INDEX_NAME).read_text())
    del stored[CHECKSUMS]
    (folder / INDEX_NAME).write_text(json.dumps(stored))
    old = open_shards(str(folder))
    assert new.has_checksums
    assert not old.index.has_checksums
    assert old.index.fingerprint == new.fingerprint
    assert READ(old.reader.sample(0, 1), 3)["num_frames"] == FRAMES


@pytest.mark.parametrize(
    "sums",
    [
        {"mp4": "xyz"},
        {"mp4": "0" * 24},
        {"mp4": [10**6, 10**6, ""]},
        {"mp4": 7},
        {"mp4": [128, 0, "00000000"]},
        {"mp4": [10**400, 1, "0" * 16]},
        {"mp4": [-1, 1, "0" * 16]},
        {"npy": "00000000"},
        [],
        "x",
    ],
)
def test_checksums_of_another_form_are_one_line(folder, sums):
    stored = json.loads((folder / INDEX_NAME).read_text())
    stored[CHECKSUMS]["part-000000.tar"][0] = sums
    (folder / INDEX_NAME).write_text(json.dumps(stored))
    with pytest.raises(
        DataError, match=r"index.json is (damaged|not JSON) \(.*--write-index"
    ) as error:
        load_index(str(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("table", "place", "count", "words"),
    [
        (b"stsz", 12, 10**8, "it claims 100000000 frames in"),
        (b"elst", 8, 20_000, "it has 20000 edits, more than 32"),
    ],
)
def test_tables_that_lie_are_refused_before_ffmpeg_makes_room(table, place, count, words):
    data = bytearray(mp4(5))
    at = data.rindex(table)
    data[at + place : at + place + 4] = count.to_bytes(4, "big")
    for read in (count_frames, lambda data: decode_frames(data, 0, 8)):
        with pytest.raises(UnreadableVideo, match=words):
            read(bytes(data))


@pytest.mark.parametrize("name", ["a.mp4", "a.npy", "a.json"])
def test_damaged_files_cost_no_more_than_their_sample(name):
    """Those of an index without checksums, or of whoever made both."""
    whole = {"a.mp4": mp4(5), "a.npy": encode_raw(video(7)), "a.json": b'{"class": 3, "fps": 24.0}'}
    for seed in range(40):
        files = {"npy": whole["a.npy"], name[2:]: damage(name, whole[name], Random(seed)).data}
        if name == "a.mp4":
            del files["npy"]

        def read_into(ext, offset, buffer, files=files):
            buffer[:] = files[ext][offset : offset + buffer.nbytes]

        places = {ext: (512, len(content)) for ext, content in files.items()}
        with suppress(UnreadableSample):
            window = READ(StoredSample(SampleEntry("key", STORED, places), read_into), 3)
            assert window["video"].shape == (FRAMES, HEIGHT, WIDTH, 3)
            np.int64(window["label"])


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(stored):
        for step in path:
            stored = stored[step]
        stored[last] = value

    return change


SAMPLE = ("shards", 0, "samples", 0)
LIES = {
    "a billion frames": put(*SAMPLE, 1, 10**9),
    "more frames than bytes": put(*SAMPLE, 1, 10**6),
    "a size of a terabyte": put(*SAMPLE, 2, "mp4", [512, 10**12]),
    "an offset of a terabyte": put(*SAMPLE, 2, "mp4", [10**12, 512]),
    "a shard of a petabyte": put("shards", 0, "bytes", 10**15),
    "a shard and a file of a petabyte": lambda stored: stored["shards"][0].update(
        bytes=10**15, samples=[["moving", 10, {"mp4": [512, 10**14]}]]
    ),
    "frames of a billion rows": put("video", "height", 10**9),
    "clips of a billion frames": put("video", "frames", 10**9),
    "a billion frames per second": put("video", "fps", 10**9),
    "a billion lanes": put("lanes", 10**9),
    "a name of a million letters": put("shards", 0, "name", "x" * 10**6 + ".tar"),
    "a key of a million letters": put(*SAMPLE, 0, ["x" * 10**6]),
    "numbers of 400 digits": put(*SAMPLE, 1, 10**400),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies_is_one_short_line(folder, lie):
    forge_index(folder, LIES[lie])
    with pytest.raises(DataError) as caught:
        open_shards(str(folder))
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600


def test_a_number_without_end_in_an_index_is_one_line(folder):
    path = folder / INDEX_NAME
    path.write_text(path.read_text().replace(f", {STORED}, ", ", 1e400, ", 1))
    with pytest.raises(DataError, match=r"index.json is not JSON \(it holds a number that is not"):
        open_shards(str(folder))


@pytest.mark.parametrize("seed", range(3))
def test_whatever_a_decoder_raises_is_an_unreadable_video(seed):
    rng, data = Random(seed), mp4(5)
    brand = bytearray(data)
    brand[data.rfind(b"avc1")] ^= 1
    cuts = [flip_bit(data[: rng.randrange(1, len(data))], rng) for _ in range(40)]
    for damaged in [bytes(brand), *cuts]:
        with suppress(UnreadableVideo):
            count_frames(damaged)
        with suppress(UnreadableVideo):
            decode_frames(damaged, 0, 8)
    with pytest.raises(UnreadableVideo, match="not a readable video"):
        decode_frames(bytes(brand), 0, 8)
