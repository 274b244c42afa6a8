"""Where the frames of a stored mp4 lie, by its own tables (ISO/IEC 14496-12, 8.5 to 8.7).

ffmpeg's demuxer hands over one by one all packets before a window, and looks into the first ones
for what the tables say: an eighth of the time that decoding takes. This reads files like those that
`codec.encode_h264` writes, and leaves all others to ffmpeg.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

_NESTED = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")
_NEEDED = (b"stsd", b"stsz", b"stsc", b"stco")
_TABLES = (*_NEEDED, b"stss")
_UNUSUAL = (b"moof", b"mvex", b"ctts", b"stz2", b"sbgp", b"co64")
"""Fragments, frames that are not shown in the order of decoding, other forms of the tables, key
frames that are said elsewhere, files of over 4 GB."""
_ALL_SHOWN = struct.pack(">II", 0, 1), struct.pack(">iI", 0, 1 << 16)
"""What is around the length of an only edit: from the first frame on, at the usual rate. The length
is not asked: frames are those of the table."""
_MOST_FRAMES = 1 << 22
_IDR = 5
"""NAL units of a picture that needs none before it (ITU-T H.264, table 7-1)."""
_AVC1_BYTES = 86
_KNOWN = {b"avcC", b"pasp", b"btrt"}
"""Of a description of frames; others may change colours or crop."""


class _Unusual(Exception):
    """For ffmpeg to read, or to refuse."""


class SampleTable(NamedTuple):
    """Of frames that are shown in the order in which they are decoded."""

    offsets: Integers
    sizes: Integers
    keys: Integers
    """Numbers of the key frames, increasing from 0."""
    size: tuple[int, int]
    """(H, W)."""
    settings: bytes
    """Of the decoder: what avcC holds (ISO/IEC 14496-15, 5.3.3)."""

    def key_before(self, frame: int) -> int:
        """The last key frame that is not after `frame`."""
        return int(self.keys[np.searchsorted(self.keys, frame, side="right") - 1])

    def can_begin(self, data: bytes, frame: int) -> bool:
        """Whether decoding can begin there, by the frame itself: a table may say so of any."""
        at, prefix = int(self.offsets[frame]), (self.settings[4] & 3) + 1
        stop = at + int(self.sizes[frame])
        while at + prefix < stop:
            if data[at + prefix] & 31 == _IDR:
                return True
            at += prefix + int.from_bytes(data[at : at + prefix], "big")
        return False


def read_sample_table(data: bytes) -> SampleTable | None:
    """The table of an mp4 with one track of H.264 and nothing unusual; None of anything else, be it
    damaged or not."""
    try:
        found: dict[bytes, tuple[int, int]] = {}
        for kind, start, stop in _tables(data, 0, len(data)):
            if kind in found:
                raise _Unusual
            found[kind] = start, stop
        if not found.keys() >= set(_NEEDED):
            raise _Unusual
        sizes = _sizes(data, *found[b"stsz"])
        offsets = _offsets(data, sizes, found[b"stsc"], found[b"stco"])
        if (offsets + sizes).max() > len(data):
            raise _Unusual
        keys = _keys(data, len(sizes), found.get(b"stss"))
        return SampleTable(offsets, sizes, keys, *_entry(data, *found[b"stsd"]))
    except (_Unusual, struct.error, ValueError):
        return None


def _tables(data: bytes, start: int, stop: int, depth: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Kind, first byte and end of the contents of every box that is a table."""
    if depth > len(_NESTED):
        raise _Unusual
    for kind, at, end in _boxes(data, start, stop):
        if kind in _UNUSUAL:
            raise _Unusual
        if kind == b"elst" and (data[at : at + 8], data[at + 12 : end]) != _ALL_SHOWN:
            raise _Unusual
        if kind in _NESTED:
            yield from _tables(data, at, end, depth + 1)
        elif kind in _TABLES:
            yield kind, at, end


def _boxes(data: bytes, at: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    while at < stop:
        size, kind = struct.unpack_from(">I4s", data, at)
        if not 8 <= size <= stop - at:
            raise _Unusual
        yield kind, at + 8, at + size
        at += size


def _sizes(data: bytes, start: int, stop: int) -> Integers:
    _, of_all, count = struct.unpack_from(">III", data, start)
    if of_all and count <= _MOST_FRAMES:
        sizes = np.full(count, of_all)
    else:
        sizes = _integers(data, start + 12, stop)
    if count != len(sizes) or not 0 < count <= _MOST_FRAMES or not sizes.min():
        raise _Unusual
    return sizes


def _keys(data: bytes, frames: int, stss: tuple[int, int] | None) -> Integers:
    """Without a table every frame is one."""
    if stss is None:
        return np.arange(frames)
    keys = _numbers(data, *stss) - 1
    if not len(keys) or keys[0] != 0 or keys[-1] >= frames or (np.diff(keys) < 1).any():
        raise _Unusual
    return keys


def _offsets(
    data: bytes, sizes: Integers, stsc: tuple[int, int], stco: tuple[int, int]
) -> Integers:
    """Of every frame, from runs of chunks that have as many frames each, and where chunks begin."""
    chunks, runs = _numbers(data, *stco), _numbers(data, *stsc, width=3)
    if not len(chunks) or not len(runs):
        raise _Unusual
    first, frames, entry = runs.T
    length = np.diff(np.append(first, len(chunks) + 1))
    if first[0] != 1 or min(length.min(), frames.min()) < 1 or (entry != 1).any():
        raise _Unusual
    of_chunk = np.repeat(frames, length)
    if of_chunk.sum() != len(sizes):
        raise _Unusual
    before = np.cumsum(sizes) - sizes
    begins = before[np.cumsum(of_chunk) - of_chunk]
    return before + np.repeat(chunks - begins, of_chunk)


def _entry(data: bytes, start: int, stop: int) -> tuple[tuple[int, int], bytes]:
    """(H, W) and the decoder's settings, of a single description of frames."""
    _, count, size, kind = struct.unpack_from(">III4s", data, start)
    if (count, kind) != (1, b"avc1") or not _AVC1_BYTES <= size == stop - start - 8:
        raise _Unusual
    width, height = struct.unpack_from(">HH", data, start + 8 + 32)
    inside = {kind: data[at:end] for kind, at, end in _boxes(data, start + 8 + _AVC1_BYTES, stop)}
    if len(inside.get(b"avcC", b"")) < 5 or not inside.keys() <= _KNOWN:
        raise _Unusual
    return (height, width), inside[b"avcC"]


def _numbers(data: bytes, start: int, stop: int, width: int = 1) -> Integers:
    """Those of a table that says how many there are, (count,) or (count, width)."""
    _, count = struct.unpack_from(">II", data, start)
    numbers = _integers(data, start + 8, stop)
    if count * width != len(numbers):
        raise _Unusual
    return numbers if width == 1 else numbers.reshape(count, width)


def _integers(data: bytes, start: int, stop: int) -> Integers:
    return np.frombuffer(data[start:stop], ">u4").astype(np.int64)
