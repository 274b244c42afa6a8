"""Windows of stored video: what training and evaluation take from a sample.

A sample is KEY.mp4 or KEY.npy (raw uint8 frames, of which only the window's bytes are read), beside
an optional KEY.json that names its class.

Shapes: T frames, H rows, W columns, 3 colours (RGB).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coordtok.config.models import NO_LABEL
from coordtok.data.index import ShardIndex
from coordtok.data.latents import is_latent
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.reused_memory import ReusedMemory
from coordtok.data.sample import label_of, read_info
from coordtok.data.tars import VIDEO_EXTENSIONS
from coordtok.errors import DataError
from coordtok.video.codec import (
    RAW_HEADER_BYTES,
    UnreadableVideo,
    check_size,
    raw_layout,
)
from coordtok.video.decoding import decode_frames


@dataclass(frozen=True)
class VideoWindows:
    """Reads windows of `frames` x `height` x `width` as a mapping of

    video       uint8 (T, H, W, 3); a shorter sample is followed by zeros
    num_frames  how many of the frames are real
    label       the class, or -1
    """

    frames: int
    height: int
    width: int
    _memory: ReusedMemory = field(default_factory=ReusedMemory, init=False, compare=False)

    def check(self, index: ShardIndex, location: str) -> None:
        """Raise DataError if these shards hold no video, or frames of another size."""
        if is_latent(index):
            raise DataError(f"{location} holds latents where video is wanted; name video shards")
        stored = (index.video.height, index.video.width)
        if stored != (self.height, self.width):
            raise DataError(
                f"{location} holds frames of {stored[0]} x {stored[1]} (H x W), the model takes "
                f"{self.height} x {self.width}; build the shards at the model's size, or train a "
                "model with model.height and model.width of the shards"
            )

    def __call__(self, sample: StoredSample, start: int) -> Mapping[str, Any]:
        """The window of the sample from frame `start` on.

        Raises:
            UnreadableSample: damaged, empty, or of another size than the index says.
        """
        count = min(self.frames, sample.entry.frames - start)
        if count < 1:
            raise UnreadableSample("it has no frames")
        label = label_of(read_info(sample))
        try:
            video = self._read_frames(sample, start, count)
        except UnreadableVideo as error:
            raise UnreadableSample(str(error)) from None
        return {"video": video, "num_frames": count, "label": label}

    def blank(self) -> Mapping[str, Any]:
        """A black window."""
        video = np.zeros((self.frames, self.height, self.width, 3), np.uint8)
        return {"video": video, "num_frames": self.frames, "label": NO_LABEL}

    def _read_frames(self, sample: StoredSample, start: int, count: int) -> np.ndarray:
        """`count` of the sample's frames from `start` on, and zeros: (T, H, W, 3)."""
        files = sample.entry.files
        ext = next((ext for ext in VIDEO_EXTENSIONS if ext in files), None)
        if ext is None:
            raise UnreadableSample(f"it has no video, only .{' .'.join(sorted(files))}")
        if ext == "npy":
            return self._read_raw(sample, start, count)
        size = self.height, self.width
        video = self._room((self.frames, *size, 3), count)
        decode_frames(sample.read(ext), start, count, size, lambda shape: video[: shape[0]])
        return video

    def _read_raw(self, sample: StoredSample, start: int, count: int) -> np.ndarray:
        size = sample.entry.files["npy"][1]
        shape, offset = raw_layout(sample.read("npy", size=min(size, RAW_HEADER_BYTES)), size)
        check_size(shape[1:3], (self.height, self.width))
        if shape[0] != sample.entry.frames:
            raise UnreadableSample(
                f"it has {shape[0]} frames, its index says {sample.entry.frames}"
            )
        video = self._room((self.frames, *shape[1:]), count)
        sample.read_into("npy", offset + start * video[0].nbytes, video[:count].reshape(-1).data)
        return video

    def _room(self, shape: tuple[int, ...], count: int) -> np.ndarray:
        """For `count` frames and the zeros after them."""
        video = self._memory.empty(shape, np.uint8)
        video[count:] = 0
        return video
