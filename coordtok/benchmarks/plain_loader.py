"""The straightforward loader that the project's is measured against, and what both are checked by.

It opens the full-size video, seeks, decodes the window, turns every frame into a Pillow image,
scales its short side, crops the centre, and cuts the patches out one by one.

Shapes: T frames, H rows, W columns, N patches of (pt, ph, pw) pixels, 3 colours.
"""

import io
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image

from coordtok.geometry.latent import Size3
from coordtok.video.codec import Frames
from coordtok.video.source import open_video, resize_and_crop


def read_window(path: Path, start: int, size: Size3) -> Frames:
    """The frames `start`, `start` + 1 ... of an .avi at `size` (T, H, W), uint8 (T, H, W, 3)."""
    count, height, width = size
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        container.seek(start, stream=stream)  # an .avi counts time in frames
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts < start:
                continue
            frames.append(np.asarray(_scale_and_crop(frame.to_image(), height, width)))
            if len(frames) == count:
                break
    return np.stack(frames)


def cut_patches(video_THW3: Frames, index_N3: np.ndarray, patch: Size3) -> np.ndarray:
    """The pixels of the indexed patches, uint8 (N, pt, ph, pw, 3), in a Python loop."""
    pt, ph, pw = patch
    patches = np.empty((len(index_N3), pt, ph, pw, 3), np.uint8)
    for number, (t, y, x) in enumerate(index_N3.tolist()):
        patches[number] = video_THW3[
            t * pt : (t + 1) * pt, y * ph : (y + 1) * ph, x * pw : (x + 1) * pw
        ]
    return patches


def exact_window(path: Path, start: int, size: Size3) -> Frames:
    """The window as it is when shards are built: nothing seeks, and the crop keeps fractions of a
    pixel that `read_window` rounds away."""
    frames = islice(open_video(path).frames(), start, start + size[0])
    return np.stack([resize_and_crop(frame, *size[1:]) for frame in frames])


def decode_only(video: Path | bytes, start: int, count: int) -> int:
    """Decode a window from the key frame before it and do nothing with the frames.

    No loader of the file can be faster. For streams without B-frames. Returns how many of the
    window's frames were decoded.
    """
    decoded = 0
    with av.open(io.BytesIO(video) if isinstance(video, bytes) else str(video)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        context.thread_count = 1
        packets = [packet for packet in container.demux(stream) if packet.size]
        first = max(at for at, packet in enumerate(packets[: start + 1]) if packet.is_keyframe)
        for packet in [*packets[first : start + count], None]:
            decoded += len(context.decode(packet))
    return decoded - (start - first)


def _scale_and_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    scale = max(height / image.height, width / image.width)
    image = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC
    )
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
