"""What is held out for validation: whole videos, or the end of each where there are too few."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from coordtok.data.partition import segment_info
from coordtok.errors import DataError
from coordtok.storage.names import short_hash
from coordtok.video.folder import Video
from data_prep.options import BuildOptions
from data_prep.shard_plan import Sample
from data_prep.work import VideoRecord

TRAIN, VAL = "train", "val"
"""Folders of the output, and what samples call their split."""


def part_names(options: BuildOptions) -> tuple[str, ...]:
    """Folders of shards in the output; "" is the output itself."""
    return ("",) if options.val_fraction is None else (TRAIN, VAL)


def splits_by_time(videos: Sequence[Video], options: BuildOptions) -> bool:
    """Whether the share of one video would be more than the fraction to hold out."""
    fraction = options.val_fraction
    return fraction is not None and len(set(_one_name_a_file(videos).values())) * fraction < 1


def train_frames(frames: int, fraction: float, clip: int) -> int | None:
    """Frames from the beginning of a video that are trained on, the rest being held out: a clip at
    least of both. None for a video that is too short for that, and trained on as a whole."""
    kept = min(round(frames * (1 - fraction)), frames - clip)
    return kept if kept >= clip else None


def split_samples(
    videos: Sequence[Video], records: Mapping[str, VideoRecord], options: BuildOptions
) -> dict[str, list[Sample]]:
    """The samples of every folder of shards.

    Raises:
        DataError: there is nothing to hold out, or nothing else.
    """
    used = [video for video in videos if records[video.name].segments]
    by_time = splits_by_time(videos, options)
    held_out = _held_out_names(used, records, options) if options.val_fraction else set()
    parts: dict[str, list[Sample]] = {name: [] for name in part_names(options)}
    for video in used:
        record = records[video.name]
        for segment in record.segments:
            begin = record.held_out_from
            late = begin is not None and segment.start >= begin
            held = late if by_time else video.name in held_out
            part = "" if "" in parts else VAL if held else TRAIN
            told = replace(video, split=video.split or part or None)
            info = segment_info(told, segment.start, segment.frames, record.fps)
            parts[part].append(Sample(segment.key, segment.bytes, info))
    if not all(parts.values()):
        raise DataError(_nothing_to_hold_out(len(used), by_time, options))
    return parts


def held_out_videos(frames: Mapping[str, int], fraction: float, clip: int, seed: int) -> set[str]:
    """The videos to hold out, from the frames of each: as many as fit into `fraction` of all
    frames, in an order drawn by `seed`, and one at least. Those shorter than a clip only if all
    are."""
    room = fraction * sum(frames.values())
    fitting = {name: count for name, count in frames.items() if count >= clip} or frames
    chosen = set()
    for name in sorted(fitting, key=lambda name: short_hash(f"{seed}/{VAL}/{name}")):
        if fitting[name] <= room:
            chosen.add(name)
            room -= fitting[name]
    return chosen or {min(fitting, key=lambda name: (fitting[name], name))}


def _held_out_names(
    used: Sequence[Video], records: Mapping[str, VideoRecord], options: BuildOptions
) -> set[str]:
    """All names of the videos to hold out."""
    assert options.val_fraction is not None
    names = _one_name_a_file(used)
    frames: Counter[str] = Counter()
    for name, first in names.items():
        frames[first] += records[name].frames
    clip, seed = options.clip_frames, options.seed
    chosen = held_out_videos(frames, options.val_fraction, clip, seed)
    return {name for name, first in names.items() if first in chosen}


def _one_name_a_file(videos: Sequence[Video]) -> dict[str, str]:
    """Of every video the first name that its file has: links must not fall on both sides."""
    first: dict[str, str] = {}
    return {each.name: first.setdefault(os.path.realpath(each.path), each.name) for each in videos}


def _nothing_to_hold_out(videos: int, by_time: bool, options: BuildOptions) -> str:
    asked = f"--val-fraction {options.val_fraction}"
    if by_time:
        return (
            f"{asked}: no video is two clips of {options.clip_frames} frames long, one to train on "
            "and one to hold out: build with a smaller --clip-frames, or from more videos"
        )
    return f"{asked}: only {videos} video can be used, none is left to train on: add videos"
