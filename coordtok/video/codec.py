"""How frames are stored in a shard; `decoding` reads windows of them back.

`h264`: an mp4 whose stream is made for reading random windows on one core: a key frame every few
frames, no CABAC and no in-loop filter (x264's `fastdecode`: half the decoding time for 6 % more
bytes), tuned for PSNR and not for the eye, because a tokenizer should learn the pixels. BT.709,
limited range, tagged as such. `raw`: a plain .npy of uint8 (T, H, W, 3).
"""

import io
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.lib import format as npy
from numpy.typing import NDArray

from coordtok.errors import DataError, one_line
from coordtok.video.pixel_formats import as_planes

Frames = NDArray[np.uint8]  # (T, H, W, 3) RGB

RAW_HEADER_BYTES = 1024
"""Of a .npy, enough to read its layout from."""

_TABLE = re.compile(rb"(?:stsz.{8}|trun.{4}|elst.{4})(.{4})", re.DOTALL)
"""The boxes that say how many frames there are, of a file and of a fragment, and how many edits."""
_MOST_EDITS = 32
"""Of a stored video, which needs one at most; each may show all frames again."""
_X264_SETTINGS = re.compile(rb"x264 - core [^\0]* keyint=(?P<gop>\d+) [^\0]* crf=(?P<crf>\d+\.\d+)")
_LARGEST_RATE_TERM = 90_000  # keeps an mp4's time scale well inside its 32 bits


class UnreadableVideo(DataError):
    """A video that does not hold what was asked of it: damaged, empty, or too short."""


def encode_h264(frames: Frames, *, crf: float, gop: int, pixel_format: str, fps: Fraction) -> bytes:
    """An mp4 of `frames` (T, H, W, 3); the same frames always give the same bytes.

    Args:
        crf: x264's constant rate factor, lower is better; 18 keeps about 40 dB.
        gop: largest distance of key frames, in frames.
        pixel_format: one of `pixel_formats.PIXEL_FORMATS`; yuv420p needs even H and W.
    """
    _, height, width, _ = frames.shape
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=storable_rate(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = gop
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        stream.options = {
            "crf": str(crf),
            "preset": "medium",
            "tune": "psnr,fastdecode",
            # x264's macroblock tree reads memory it never wrote, so bytes would vary from one
            # process to the next; it saves 7 % of them.
            "x264-params": f"threads=1:keyint={gop}:min-keyint=1:bframes=0:mbtree=0",
        }
        for picture in _pictures(frames, pixel_format):
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def count_frames(data: bytes) -> int:
    """Number of frames of an encoded video, by counting packets: nothing is decoded."""
    with parsing("readable video"), open_mp4(data) as container:
        return sum(1 for _ in each_packet(container))


def h264_settings(data: bytes) -> dict[str, Any]:
    """How an encoded video was made, as far as it tells: `pixel_format`, and `crf` (to a tenth) and
    `gop` where x264 wrote down its settings."""
    with parsing("readable video"), open_mp4(data) as container:
        told: dict[str, Any] = {"pixel_format": container.streams.video[0].pix_fmt}
    if settings := _X264_SETTINGS.search(data):
        told |= {"crf": float(settings["crf"]), "gop": int(settings["gop"])}
    return told


def check_size(found: tuple[int, int], wanted: tuple[int, int]) -> None:
    """Compare the (H, W) of frames with what they must have; raises UnreadableVideo."""
    if found != wanted:
        raise UnreadableVideo(
            f"its frames are {found[0]} x {found[1]}, not {wanted[0]} x {wanted[1]}"
        )


def encode_raw(frames: Frames) -> bytes:
    """A .npy file of `frames`."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(frames), allow_pickle=False)
    return buffer.getvalue()


def raw_header(shape: tuple[int, int, int, int]) -> bytes:
    """The first `RAW_HEADER_BYTES` of a .npy of uint8 frames (T, H, W, 3); pixels follow."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    start = npy.magic(1, 0) + (RAW_HEADER_BYTES - 10).to_bytes(2, "little")
    return start + text.ljust(RAW_HEADER_BYTES - 11).encode() + b"\n"


@lru_cache(maxsize=64)  # of a dataset most are alike, and Python's parser takes a while
def raw_layout(head: bytes, size: int) -> tuple[tuple[int, int, int, int], int]:
    """Shape (T, H, W, 3) of a stored .npy of `size` bytes and the offset of its first pixel, from
    its first bytes.

    Raises:
        UnreadableVideo: not a .npy of uint8 (T, H, W, 3) in C order, or shorter than it says.
    """
    stream = io.BytesIO(head)
    with parsing(".npy file"):
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    if dtype != np.uint8 or fortran or len(shape) != 4 or shape[3] != 3 or min(shape) < 1:
        raise UnreadableVideo(f".npy of {dtype} {shape} where uint8 (T, H, W, 3) belongs")
    pixels = size - stream.tell()
    if math.prod(shape) > pixels:
        raise UnreadableVideo(f".npy of {shape} with {pixels} bytes of pixels, fewer than it needs")
    return shape, stream.tell()


def decode_raw(data: bytes) -> Frames:
    """All frames of a stored .npy."""
    shape, offset = raw_layout(data[:RAW_HEADER_BYTES], len(data))
    if len(data) - offset != math.prod(shape):
        raise UnreadableVideo(f".npy of {shape} with {len(data) - offset} bytes of pixels")
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)


def storable_rate(fps: Fraction) -> Fraction:
    """`fps` with terms an mp4 can hold; the number of frames does not depend on it."""
    rate = max(fps, Fraction(1, 1000)).limit_denominator(_LARGEST_RATE_TERM)
    return rate if rate.numerator <= _LARGEST_RATE_TERM else Fraction(round(rate))


def _pictures(frames: Frames, pixel_format: str) -> Iterator[av.VideoFrame]:
    """Frames as the encoder takes them."""
    reformatter = VideoReformatter()
    for number, pixels in enumerate(frames):
        yield as_planes(reformatter, pixels, pixel_format, number)


@contextmanager
def parsing(what: str) -> Iterator[None]:
    """Whatever a parser raises of damaged bytes, they are no readable video; nothing is read from a
    disk meanwhile, so that no failing disk is taken for one."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        reason = one_line(error) or type(error).__name__
        raise UnreadableVideo(f"not a {what}: {reason}") from None


def open_mp4(data: bytes) -> av.container.InputContainer:
    """An mp4 as nothing else: ffmpeg would take other text for a playlist, and read the files
    and hosts it names."""
    _check_tables(data)
    return av.open(io.BytesIO(data), "r", format="mp4", options={"protocol_whitelist": "none"})


def _check_tables(data: bytes) -> None:
    """Refuse more frames than there are bytes: ffmpeg makes room for 80 million before it looks.
    Nor may edits show them again and again."""
    counts = {b"stsz": 0, b"trun": 0, b"elst": 0}
    for box in _boxes(data):
        for table in _TABLE.finditer(box):
            name = table[0][:4]
            counts[name] = max(counts[name], int.from_bytes(table[1], "big"))
    frames = max(counts[b"stsz"], counts[b"trun"])
    if frames > len(data):
        raise UnreadableVideo(f"it claims {frames} frames in {len(data)} bytes")
    if counts[b"elst"] > _MOST_EDITS:
        raise UnreadableVideo(f"it has {counts[b'elst']} edits, more than {_MOST_EDITS}")


def _boxes(data: bytes) -> Iterator[bytes]:
    """The outermost boxes of an mp4 (ISO/IEC 14496-12, 4.2), without that of the frames."""
    at = 0
    while at + 8 <= len(data):
        size, head = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if 0 < size < head:
            return
        stop = at + size if size else len(data)
        if data[at + 4 : at + 8] != b"mdat":
            yield data[at:stop]
        at = stop


def each_packet(container: av.container.InputContainer) -> Iterator[av.Packet]:
    """The packets of frames, in the order of decoding."""
    if not container.streams.video:
        raise UnreadableVideo("no picture in it")
    packets = container.demux(container.streams.video[0])
    return (each for each in packets if each.size and each.pts is not None)
