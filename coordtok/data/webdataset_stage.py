"""For pipelines of one's own: a sample as webdataset gives it, decoded.

    stage = functools.partial(coordtok.decode_sample, frames=128)
    clips = webdataset.WebDataset(urls).map(stage).to_tuple("video", "num_frames", "label")

Order, shuffling, sharing among ranks and resuming are then webdataset's. Training here reads shards
by `data.loader` instead, whose order is the same on any number of ranks and can be continued
anywhere.

Shapes: T frames, H rows, W columns, 3 colours (RGB).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from coordtok.data.order import draw_start
from coordtok.data.sample import label_of
from coordtok.data.tars import VIDEO_EXTENSIONS
from coordtok.errors import ConfigError, one_line
from coordtok.storage.json_files import parse_json
from coordtok.video.codec import (
    RAW_HEADER_BYTES,
    Frames,
    UnreadableVideo,
    count_frames,
    decode_raw,
    raw_layout,
)
from coordtok.video.decoding import decode_frames


def decode_sample(
    sample: Mapping[str, Any],
    frames: int | None = None,
    start: int | None = None,
    rng: np.random.Generator | None = None,
) -> dict[str, Any]:
    """A sample of video shards with, in place of its encoded video,

    video       uint8 (T, H, W, 3); all frames, or a window of `frames`, with zeros after the end of
                a shorter sample
    num_frames  how many of them are real
    label       the class of its KEY.json, or -1
    json        what else its KEY.json says, as a dict

    start: the window's first frame; by default drawn uniformly by `rng`, or by a new generator.

    Raises:
        ConfigError: `frames` below 1 or `start` below 0.
        UnreadableVideo: no video, damaged, or none of its frames in the window. webdataset leaves
            such samples out by `map(stage, handler=webdataset.warn_and_continue)`.
    """
    if (frames is not None and frames < 1) or (start is not None and start < 0):
        raise ConfigError(f"frames is {frames} and start {start}; at least 1, from frame 0 on")
    try:
        video, count = _window(sample, frames, start, rng)
        info = _info(sample)
    except UnreadableVideo as error:
        where = f"{sample.get('__key__')} in {sample.get('__url__')}"
        raise UnreadableVideo(one_line(f"{where}: {error}")) from None
    rest = {name: value for name, value in sample.items() if name not in VIDEO_EXTENSIONS}
    return {**rest, "video": video, "num_frames": count, "label": label_of(info), "json": info}


def _window(
    sample: Mapping[str, Any],
    frames: int | None,
    start: int | None,
    rng: np.random.Generator | None,
) -> tuple[Frames, int]:
    """The window's frames, followed by zeros where it has fewer, and how many it has."""
    ext = next((ext for ext in VIDEO_EXTENSIONS if ext in sample), None)
    if ext is None:
        raise UnreadableVideo(f"it has no .{' or .'.join(VIDEO_EXTENSIONS)}")
    data, is_raw = sample[ext], ext == "npy"
    stored = raw_layout(data[:RAW_HEADER_BYTES], len(data))[0][0] if is_raw else count_frames(data)
    length = frames or stored
    if start is None:
        start = draw_start(rng or np.random.default_rng(), stored, length)
    count = min(length, stored - start)
    if count < 1:
        raise UnreadableVideo(f"it has no frame {start}, but {stored}")
    video = decode_raw(data)[start : start + count] if is_raw else decode_frames(data, start, count)
    rest = np.zeros((length - count, *video.shape[1:]), np.uint8)
    return np.concatenate([video, rest]), count


def _info(sample: Mapping[str, Any]) -> dict[str, Any]:
    try:
        info = parse_json(sample.get("json", b"{}"), any_number=True)
    except ValueError as error:
        raise UnreadableVideo(f"its .json is damaged ({error})") from None
    if not isinstance(info, dict):
        raise UnreadableVideo(f"its .json is damaged (a {type(info).__name__}, no names)")
    return info
