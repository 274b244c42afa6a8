"""One video into encoded segments.

Frames stream through: a segment and a clip of them are in memory, and one segment more for each
that is being encoded meanwhile, however long the film. Segments are consecutive and cover every
frame; a remainder shorter than a clip joins the segment before it, and only a video that is shorter
than a clip makes a segment that is.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from coordtok.data.partition import segment_key
from coordtok.storage.files import write_whole
from coordtok.video.codec import (
    Frames,
    UnreadableVideo,
    encode_h264,
    encode_raw,
)
from coordtok.video.decoding import decode_frames
from coordtok.video.folder import Video
from coordtok.video.source import (
    DamageInThreads,
    Picture,
    SourceVideo,
    open_video,
    resize_and_crop,
)
from coordtok.video.threads import map_in_order
from data_prep.held_out import train_frames
from data_prep.options import BuildOptions
from data_prep.work import Segment, VideoRecord, WorkFolder

LUMA_1024 = np.array([218, 732, 74], np.int32)  # BT.709's weights times 1024
_FRAMES_AT_A_TIME = 32
_SEGMENTS_MEMORY = 1 << 30  # bytes of pixels that a video's segments may take at a time

Report = Callable[[int], None]  # called with the number of frames just stored


@dataclass(frozen=True)
class VideoTask:
    """One video to store; `threads` may work on it. by_time: its end is to be held out."""

    video: Video
    options: BuildOptions
    threads: int
    by_time: bool = False

    @property
    def name(self) -> str:
        return self.video.name


def store_video(task: VideoTask, report: Report) -> VideoRecord:
    """Encode a video's segments into the work folder; its record is written last.

    A video that cannot be read leaves a record with the reason. A damaged one is decoded again on
    one thread, so that the number of processes changes no byte.

    Raises:
        DataError: the segments cannot be written.
    """
    work = WorkFolder(Path(task.options.output))
    try:
        try:
            record = _store_segments(work, task, report)
        except DamageInThreads:
            record = _store_segments(work, task, report, decoders=1)
    except UnreadableVideo as error:
        record = VideoRecord(task.name, 0.0, (), str(error))
    work.put_video(record)
    return record


def _store_segments(
    work: WorkFolder, task: VideoTask, report: Report, decoders: int | None = None
) -> VideoRecord:
    """Raises UnreadableVideo, and leaves no segment."""
    options = task.options
    source = open_video(task.video.path, task.threads, options.keep_damaged, decoders)
    held_out_from = _held_out_from(source, options) if task.by_time else None
    begun: list[str] = []

    def store(segment: tuple[int, Frames]) -> Segment:
        start, frames = segment
        begun.append(segment_key(task.name, start))
        return _store(work, begun[-1], options, start, frames, source.fps)

    cut_up = _segments(source, options, held_out_from)
    segments: list[Segment] = []
    try:
        for segment in map_in_order(store, cut_up, task.threads, _ahead(task)):
            segments.append(segment)
            report(segment.frames)
        _check_length(segments, options)
    except UnreadableVideo:
        for key in begun:
            work.segment(key).unlink(missing_ok=True)
        raise
    fps = float(options.fps or source.fps)
    return VideoRecord(task.name, fps, tuple(segments), None, source.damage, held_out_from)


def _held_out_from(source: SourceVideo, options: BuildOptions) -> int | None:
    """The first frame that is held out; None for a video that is too short."""
    assert options.val_fraction is not None
    first, end = options.frames
    count = source.count()
    if options.fps is not None:
        count = int(count * options.fps / source.fps)
    frames = min(count, count if end is None else end) - first
    kept = train_frames(frames, options.val_fraction, options.clip_frames)
    return None if kept is None else first + kept


def _ahead(task: VideoTask) -> int:
    """How many segments may be in memory at a time: one for each thread, while there is room."""
    options = task.options
    pixels = options.height * options.width * options.clip_frames * (options.clips_per_segment + 1)
    return max(1, min(task.threads, _SEGMENTS_MEMORY // (3 * pixels)))


def cut(frames: Iterable[Picture], length: int, clip: int) -> Iterator[Frames]:
    """Consecutive segments, as long as `segment_lengths` says, of a video that is still coming."""
    held: list[Picture] = []
    for frame in frames:
        held.append(frame)
        if len(held) == length + clip:
            yield np.stack(held[:length])
            del held[:length]
    if held:
        yield np.stack(held)


def squared_errors(stored: Frames, wanted: Frames) -> tuple[int, int]:
    """Sums over (T, H, W, 3): of all values' squared errors, and of luma's times 1024^2."""
    rgb = luma = 0
    for at in range(0, len(wanted), _FRAMES_AT_A_TIME):
        part = slice(at, at + _FRAMES_AT_A_TIME)
        error = stored[part].astype(np.int32) - wanted[part]
        rgb += int((error**2).sum(dtype=np.int64))
        weighted = sum(error[..., channel] * LUMA_1024[channel] for channel in range(3))
        luma += int(np.square(weighted, dtype=np.int64).sum())
    return rgb, luma


def _segments(
    source: SourceVideo, options: BuildOptions, held_out_from: int | None
) -> Iterator[tuple[int, Frames]]:
    """(first frame in the source, frames) of every segment; none goes over `held_out_from`."""

    def resize(picture: Picture) -> Picture:
        return resize_and_crop(picture, options.height, options.width, options.resample)

    at, end = options.frames
    pictures = islice(source.frames(options.fps, resize), at, end)
    clip = options.clip_frames
    for count in (None,) if held_out_from is None else (held_out_from - at, None):
        for frames in cut(islice(pictures, count), clip * options.clips_per_segment, clip):
            yield at, frames
            at += len(frames)


def _store(
    work: WorkFolder, key: str, options: BuildOptions, start: int, frames: Frames, native: Fraction
) -> Segment:
    if options.codec == "raw":
        data, errors = encode_raw(frames), (0, 0)
    else:
        data = encode_h264(
            frames,
            crf=options.crf,
            gop=options.gop,
            pixel_format=options.pixel_format,
            fps=options.fps or native,
        )
        errors = squared_errors(decode_frames(data, 0, len(frames)), frames)
    write_whole(work.segment(key), data)
    return Segment(key, start, len(frames), len(data), *errors)


def _check_length(segments: list[Segment], options: BuildOptions) -> None:
    frames = sum(segment.frames for segment in segments)
    if not frames:
        raise UnreadableVideo(f"it ends before frame {options.frames[0]}, where --frames starts")
    if frames < options.min_frames:
        raise UnreadableVideo(f"shorter than --min-frames {options.min_frames}: it has {frames}")
