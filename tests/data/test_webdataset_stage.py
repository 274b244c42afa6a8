"""Shards in webdataset's own pipelines, and what of webdataset could stand in our code's place."""

import functools
import io
import json
import warnings
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from webdataset.tariterators import base_plus_ext

from coordtok import decode_sample
from coordtok.data.tars import Member, write_tar
from coordtok.errors import ConfigError, DataError
from coordtok.video.codec import (
    encode_h264,
    encode_raw,
)
from coordtok.video.decoding import decode_frames


def film(number: int, frames: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (frames, 16, 32, 3), np.uint8)


LONG, SHORT = film(0, 20), film(1, 5)
MP4 = encode_h264(LONG, crf=20, gop=4, pixel_format="yuv420p", fps=Fraction(24))
MEMBERS = [
    ("long.mp4", MP4),
    ("long.json", json.dumps({"class": 3, "fps": 24.0}).encode()),
    ("short.npy", encode_raw(SHORT)),
    ("broken.mp4", MP4[: len(MP4) // 2]),
    ("broken.json", b"{}"),
    ("still.png", b"no video"),
]


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("shard") / "a-000000.tar"
    with open(path, "wb") as file:
        write_tar(file, MEMBERS)
    return str(path)


def dataset(shard: str) -> webdataset.WebDataset:
    return webdataset.WebDataset(shard, shardshuffle=False, empty_check=False)


def test_samples_come_decoded_and_what_is_damaged_can_be_left_out(shard: str) -> None:
    samples = dataset(shard).map(decode_sample, handler=webdataset.warn_and_continue)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        first, second = samples
    said = [str(warning.message) for warning in warned]
    for key in ("broken", "still"):
        assert any(f"{key} in {shard}: " in message for message in said)
    assert np.array_equal(first["video"], decode_frames(MP4, 0, 20))
    assert np.array_equal(second["video"], SHORT)
    assert (first["__key__"], first["label"], first["json"]["fps"]) == ("long", 3, 24.0)
    assert (second["__key__"], second["label"], second["num_frames"]) == ("short", -1, 5)
    assert not {"mp4", "npy"} & {*first, *second}


def test_windows_make_batches(shard: str) -> None:
    stage = functools.partial(decode_sample, frames=8, rng=np.random.default_rng(1))
    clips = dataset(shard).slice(2).map(stage).to_tuple("video", "num_frames", "label")
    loader = webdataset.WebLoader(clips.batched(2), batch_size=None, num_workers=0)
    (video, num_frames, label), = loader  # fmt: skip
    assert (video.shape, video.dtype) == ((2, 8, 16, 32, 3), torch.uint8)
    assert (num_frames.tolist(), label.tolist()) == ([8, 5], [3, -1])
    assert np.array_equal(video[1], np.concatenate([SHORT, np.zeros((3, 16, 32, 3))]))
    starts = [
        start for start in range(13) if np.array_equal(video[0], decode_frames(MP4, start, 8))
    ]
    assert len(starts) == 1


def test_a_window_can_start_anywhere(shard: str) -> None:
    sample = next(iter(dataset(shard)))
    window = decode_sample(sample, frames=8, start=15)
    assert window["num_frames"] == 5
    assert np.array_equal(window["video"][:5], decode_frames(MP4, 15, 5))
    drawn = {
        decode_sample(sample, frames=18, rng=np.random.default_rng(seed))["video"].tobytes()
        for seed in range(20)
    }
    assert len(drawn) == 3
    with pytest.raises(DataError, match=r"long in .*: it has no frame 20, but 20"):
        decode_sample(sample, start=20)
    with pytest.raises(ConfigError, match="frames is 0"):
        decode_sample(sample, frames=0)
    for damaged in (b"{", b"[1]"):
        with pytest.raises(DataError, match=r"long in .*its \.json is damaged"):
            decode_sample({**sample, "json": damaged})


def test_webdatasets_writer_gives_the_same_bytes(shard: str) -> None:
    """Member by member, that is: of a whole sample it writes the members in the order of their
    extensions, KEY.json before KEY.mp4."""
    buffer = io.BytesIO()
    writer = webdataset.TarWriter(buffer, user="", group="", mode=0o644, mtime=0, encoder=False)
    with writer:
        for name, content in MEMBERS:
            key, ext = base_plus_ext(name)
            writer.write({"__key__": key, ext: content})
    assert buffer.getvalue() == Path(shard).read_bytes()


@pytest.mark.parametrize("name", ["a.mp4", "x.y/a.left.MP4", "x.y/a", "/.mp4", ".mp4", "a.", "é.b"])
def test_webdataset_reads_the_same_keys_from_names(name: str) -> None:
    key, ext = Member(name, 0, 0).key_and_extension
    assert base_plus_ext(name) == (
        (key, ext) if key and "." in name.rsplit("/")[-1] else (None, None)
    )
