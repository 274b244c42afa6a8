"""One video into encoded segments.

Frames stream through: at most one segment and one clip of them are in memory, however long the
film. Segments are consecutive and cover every frame; a remainder shorter than a clip joins the
segment before it, and only a video that is shorter than a clip makes a segment that is.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np

from coordtok.data.partition import segment_key
from coordtok.storage.files import write_whole
from coordtok.video.codec import Frames, UnreadableVideo, decode_frames, encode_h264, encode_raw
from coordtok.video.folder import Video
from coordtok.video.source import Picture, open_video, resize_and_crop
from data_prep.options import BuildOptions
from data_prep.work import Segment, VideoRecord, WorkFolder

LUMA_1024 = np.array([218, 732, 74], np.int32)  # BT.709's weights times 1024
_FRAMES_AT_A_TIME = 32

Report = Callable[[int], None]  # called with the number of frames just stored


@dataclass(frozen=True)
class VideoTask:
    """One video to store; `threads` may work on it."""

    video: Video
    options: BuildOptions
    threads: int

    @property
    def name(self) -> str:
        return self.video.name


def store_video(task: VideoTask, report: Report) -> VideoRecord:
    """Encode a video's segments into the work folder; its record is written last.

    A video that cannot be read leaves a record with the reason.

    Raises:
        DataError: the segments cannot be written.
    """
    work = WorkFolder(Path(task.options.output))
    segments: list[Segment] = []
    try:
        source = open_video(task.video.path, task.threads)
        for start, frames in _segments(source.frames(task.options.fps), task):
            segments.append(_store(work, task, start, frames, source.fps))
            report(len(frames))
        _check_length(segments, task.options)
        fps = float(task.options.fps or source.fps)
        record = VideoRecord(task.name, fps, tuple(segments))
    except UnreadableVideo as error:
        for segment in segments:
            work.segment(segment.key).unlink(missing_ok=True)
        record = VideoRecord(task.name, 0.0, (), str(error))
    work.put_video(record)
    return record


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


def _segments(pictures: Iterator[Picture], task: VideoTask) -> Iterator[tuple[int, Frames]]:
    """(first frame in the source, frames) of every segment."""
    options = task.options
    first, end = options.frames
    chosen = islice(pictures, first, end)
    clip = options.clip_frames
    at = first
    for frames in cut(_resized(chosen, task), clip * options.clips_per_segment, clip):
        yield at, frames
        at += len(frames)


def _resized(pictures: Iterator[Picture], task: VideoTask) -> Iterator[Picture]:
    options = task.options

    def resize(picture: Picture) -> Picture:
        return resize_and_crop(picture, options.height, options.width, options.resample)

    if task.threads == 1:
        yield from map(resize, pictures)
        return
    with ThreadPoolExecutor(task.threads) as pool:
        while block := list(islice(pictures, _FRAMES_AT_A_TIME)):
            yield from pool.map(resize, block)


def _store(
    work: WorkFolder, task: VideoTask, start: int, frames: Frames, native: Fraction
) -> Segment:
    options = task.options
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
    key = segment_key(task.name, start)
    write_whole(work.segment(key), data)
    return Segment(key, start, len(frames), len(data), *errors)


def _check_length(segments: list[Segment], options: BuildOptions) -> None:
    frames = sum(segment.frames for segment in segments)
    if not frames:
        raise UnreadableVideo(f"it ends before frame {options.frames[0]}, where --frames starts")
    if frames < options.min_frames:
        raise UnreadableVideo(f"{frames} frames, fewer than --min-frames {options.min_frames}")
