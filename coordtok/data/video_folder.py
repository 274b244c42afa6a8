"""A folder of videos, read without building shards of it.

It gives the samples of the raw shards that `data_prep.build_shards --codec raw` makes of it at the
same size: the same keys, frames and KEY.json in the same lanes, hence the same order and the same
clips. KEY.npy is made when its bytes are asked for: the frames that they belong to are decoded and
resized. All that reads shards reads a folder in the same way, at the cost of decoding full-size
video each time. Which files are videos is told here by their names; the builder opens the others
too.

Shapes: T frames, H rows, W columns, 3 colours (RGB).
"""

import hashlib
import json
import logging
import os
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from coordtok.data.index import SampleEntry, ShardEntry, ShardIndex, VideoSpec, default_lanes
from coordtok.data.member import StoredSample
from coordtok.data.partition import (
    CLIPS_PER_SEGMENT,
    DEALING_SEED,
    SHARD_PREFIX,
    deal,
    segment_info,
    segment_key,
    segment_lengths,
)
from coordtok.data.video_index import VideoFacts, read_facts
from coordtok.errors import DataError, as_typed, one_line
from coordtok.storage.attempts import retry
from coordtok.video.codec import RAW_HEADER_BYTES, Frames, UnreadableVideo, raw_header
from coordtok.video.folder import Video
from coordtok.video.source import open_video, resize_and_crop

logger = logging.getLogger(__name__)

_MOST_NAMED = 5


@dataclass(frozen=True)
class _Segment:
    """`frames` consecutive frames of a video, from `start` on: one sample."""

    video: Video
    facts: VideoFacts
    start: int
    frames: int

    @property
    def key(self) -> str:
        return segment_key(self.video.name, self.start)

    @property
    def info(self) -> bytes:
        return segment_info(self.video, self.start, self.frames, self.facts.fps).encode()


class VideoFolderReader:
    """Reads samples as `data.shards.ShardReader` does."""

    held_bytes = 0

    def __init__(
        self, location: str, segments: Sequence[_Segment], size: VideoSpec, io_retries: int
    ) -> None:
        self.location = location
        self._size, self._io_retries = size, io_retries
        lanes = default_lanes(len(segments))
        self._shards = deal([(each.key, each) for each in segments], lanes, DEALING_SEED)
        shards = tuple(self._entry(number, each) for number, each in enumerate(self._shards))
        self.index = ShardIndex(size, {"name": "videos"}, lanes, shards)

    def sample(
        self, shard: int, sample: int, *, lane: int = 0, ahead: Iterable[int] = ()
    ) -> StoredSample:
        """A sample by its place in the index.

        Reading it raises UnreadableVideo where the video is damaged, and DataError where the file
        cannot be read or is no longer the one that was indexed.
        """
        segment = self._shards[shard][sample]
        return StoredSample(self.index.shards[shard].samples[sample], partial(self._read, segment))

    def close(self) -> None:
        """Nothing stays open."""

    def _entry(self, number: int, segments: Sequence[_Segment]) -> ShardEntry:
        samples, seen, end = [], [], 0
        for each in segments:
            sizes = {"npy": RAW_HEADER_BYTES + each.frames * self._frame_bytes}
            sizes["json"] = len(each.info)
            files = {}
            for ext, size in sizes.items():
                files[ext] = (end, size)
                end += size
            samples.append(SampleEntry(each.key, each.frames, files))
            seen.append([each.video.name, each.facts.bytes, each.facts.modified_ns])
        digest = hashlib.sha256(json.dumps(seen).encode()).hexdigest()
        return ShardEntry(f"{SHARD_PREFIX}-{number:06d}.tar", end, digest, tuple(samples))

    @property
    def _frame_bytes(self) -> int:
        return self._size.height * self._size.width * 3

    def _read(self, segment: _Segment, ext: str, offset: int, buffer: memoryview) -> None:
        if ext == "json":
            buffer[:] = segment.info[offset : offset + buffer.nbytes]
            return
        shape = (segment.frames, self._size.height, self._size.width, 3)
        head = raw_header(shape)[offset : offset + buffer.nbytes]
        buffer[: len(head)] = head
        if len(head) == buffer.nbytes:
            return
        first, skip = divmod(max(offset - RAW_HEADER_BYTES, 0), self._frame_bytes)
        wanted = buffer[len(head) :]
        count = -(-(skip + wanted.nbytes) // self._frame_bytes)
        pixels = self._frames(segment, first, count).reshape(-1)
        wanted[:] = pixels[skip : skip + wanted.nbytes].data

    def _frames(self, segment: _Segment, first: int, count: int) -> Frames:
        """`count` frames of a segment, (T, H, W, 3), from `first` on."""
        frames = np.empty((count, self._size.height, self._size.width, 3), np.uint8)
        video, facts = segment.video, segment.facts

        def read() -> None:
            if not facts.are_of(video.path):
                raise DataError(f"{video.path} was changed meanwhile; run the same command again")
            window = open_video(video.path).window(segment.start + first, count, facts.anchors)
            for number, picture in enumerate(window):
                frames[number] = resize_and_crop(picture, self._size.height, self._size.width)

        try:
            retry(read, video.path, self._io_retries)
        except UnreadableVideo as error:
            raise UnreadableVideo(f"{video.name}: {error}") from None
        return frames


def open_video_folder(
    location: str, videos: Sequence[Video], size: tuple[int, int, int], io_retries: int
) -> VideoFolderReader:
    """The videos of a local folder, as samples for clips of `size` (T, H, W).

    Raises:
        DataError: none of them can be used, or the index of them not be written.
    """
    facts = read_facts(Path(location), videos)
    frames, height, width = size
    segments = [each for video in videos for each in _segments(video, facts[video.name], frames)]
    failures = [f"{name}: {each.failure}" for name, each in facts.items() if each.failure]
    if not segments:
        raise DataError(
            f"no video of {len(failures)} in {location} can be used: {one_line(failures[0])}"
        )
    _say(location, size, len(videos) - len(failures), failures)
    spec = VideoSpec(frames, height, width, None)
    return VideoFolderReader(location, segments, spec, io_retries)


def _segments(video: Video, facts: VideoFacts, clip: int) -> list[_Segment]:
    segments, start = [], 0
    for frames in segment_lengths(facts.frames, clip * CLIPS_PER_SEGMENT, clip):
        segments.append(_Segment(video, facts, start, frames))
        start += frames
    return segments


def _say(location: str, size: tuple[int, int, int], usable: int, failures: list[str]) -> None:
    """What is left out, and what shards would save; one rank's words are enough."""
    if os.environ.get("RANK", "0") != "0":
        return
    for failure in failures[:_MOST_NAMED]:
        logger.warning("left out: %s", one_line(failure))
    if len(failures) > _MOST_NAMED:
        logger.warning("left out: %d more", len(failures) - _MOST_NAMED)
    frames, height, width = size
    logger.warning(
        "%s holds videos (usable: %d) and no shards: each clip is decoded at full size and resized "
        "every time; shards are read about 8 times as fast: "
        + as_typed("python -m data_prep.build_shards")
        + " --input %s --output shards/%s --clip-frames %d --height %d --width %d",
        location,
        usable,
        shlex.quote(location),
        shlex.quote(Path(location).resolve().name),
        frames,
        height,
        width,
    )
