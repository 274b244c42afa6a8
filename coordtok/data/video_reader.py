"""Windows of stored video: what training and evaluation take from a sample.

A sample is KEY.mp4 or KEY.npy (raw uint8 frames, of which only the window's bytes are read), beside
an optional KEY.json that names its class.

Shapes: T frames, H rows, W columns, 3 colours (RGB); R rows of all planes of a frame.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from coordtok.config.models import NO_LABEL
from coordtok.data.index import WRITE_INDEX, ShardIndex
from coordtok.data.latents import is_latent
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.reused_memory import ReusedMemory
from coordtok.data.sample import label_of, read_info
from coordtok.data.tars import VIDEO_EXTENSIONS
from coordtok.errors import DataError
from coordtok.geometry.bt709 import BLACK
from coordtok.video.codec import (
    RAW_HEADER_BYTES,
    UnreadableVideo,
    check_size,
    raw_layout,
)
from coordtok.video.decoding import OtherPlanes, decode_frames, decode_planes

PLANE_ROWS = {"yuv420p": Fraction(3, 2), "yuv444p": Fraction(3)}
"""R by H, by pixel format: Y' above Cb above Cr, each W numbers in a row of W, whatever its own."""


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
    planes: str | None = None
    """A pixel format, by whose name then planes (T, R, W) stand in place of `video`: for a device
    that makes RGB of them itself (`geometry.pixels.from_planes`)."""
    _memory: ReusedMemory = field(default_factory=ReusedMemory, init=False, compare=False)

    def as_stored(self, indices: Sequence[ShardIndex]) -> "VideoWindows":
        """Planes, if all these shards hold the same ones of whole rows; else RGB."""
        stored = {str(index.codec.get("pixel_format")) for index in indices}
        even = self.height % 2 == self.width % 2 == 0
        if len(stored) == 1 and stored <= PLANE_ROWS.keys() and even:
            return replace(self, planes=stored.pop())
        return self

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
        return {self.planes or "video": video, "num_frames": count, "label": label}

    def blank(self) -> Mapping[str, Any]:
        """A black window."""
        video = self._room(self._shape, 0)
        return {self.planes or "video": video, "num_frames": self.frames, "label": NO_LABEL}

    @property
    def _shape(self) -> tuple[int, ...]:
        if self.planes is None:
            return self.frames, self.height, self.width, 3
        return self.frames, int(self.height * PLANE_ROWS[self.planes]), self.width

    def _read_frames(self, sample: StoredSample, start: int, count: int) -> np.ndarray:
        """`count` of the sample's frames from `start` on, and black ones."""
        files = sample.entry.files
        ext = next((ext for ext in VIDEO_EXTENSIONS if ext in files), None)
        if ext is None:
            raise UnreadableSample(f"it has no video, only .{' .'.join(sorted(files))}")
        if ext == "npy" and self.planes is not None:
            raise self._other(sample, "it holds raw frames")
        if ext == "npy":
            return self._read_raw(sample, start, count)
        data, size = sample.read(ext), (self.height, self.width)
        video = self._room(self._shape, count)
        if self.planes is None:
            decode_frames(data, start, count, size, lambda shape: video[:count])
            return video
        try:
            frames_TK = video[:count].reshape(count, -1)
            decode_planes(data, start, count, size, self.planes, lambda shape: frames_TK)
        except OtherPlanes as error:
            raise self._other(sample, str(error)) from None
        return video

    def _other(self, sample: StoredSample, what: str) -> DataError:
        """Fatal: only on some devices would it be skipped."""
        return DataError(
            f"{sample.entry.key}: {what}, where its index says {self.planes}; {WRITE_INDEX}, or "
            "set data.planes=false"
        )

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
        """For `count` frames and the black ones after them."""
        video = self._memory.empty(shape, np.uint8)
        luma, chroma = BLACK
        video[count:] = 0 if self.planes is None else chroma
        if self.planes is not None:
            video[count:, : self.height] = luma
        return video
