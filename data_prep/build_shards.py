"""Raw videos to WebDataset shards: `python -m data_prep.build_shards --help`.

Videos are encoded into segments in a work folder, in parallel; only then is it known how many
samples there are, and they are dealt to shards. `index.json` is written last: a folder that has one
is complete. Killed at any time, the same command goes on where it stood.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any

from coordtok.cli import exit_on_user_error
from coordtok.data.index import INDEX_NAME, ShardEntry, ShardIndex, VideoSpec
from coordtok.errors import ConfigError, DataError
from coordtok.progress import ProgressBar
from coordtok.storage.claims import Claim
from coordtok.storage.files import remove_partial, write_whole
from coordtok.storage.locks import sole_owner
from coordtok.video.folder import Video
from data_prep.datasets import Scan, scan
from data_prep.distributors import Distributor, Done, Progress, make_distributor
from data_prep.held_out import part_names, split_samples, splits_by_time
from data_prep.options import BuildOptions, RunOptions, parse
from data_prep.segments import VideoTask, store_video
from data_prep.shard_plan import Plan, plan_shards
from data_prep.shard_writer import ShardTask, write_shard
from data_prep.summary import FAILURES_NAME, Part, Summary
from data_prep.work import VideoRecord, WorkFolder

BUILD_NAME = "build.json"
_BAR = "{desc}: {n_fmt}/{total_fmt} |{bar}| [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


def build(options: BuildOptions, run: RunOptions) -> tuple[Summary, bool]:
    """Build a dataset's shards, or go on building them.

    Returns:
        The summary, and whether everything had been built before.

    Raises:
        UserError: nothing to build from, no room, or an output folder with something else in it.
    """
    output = Path(options.output)
    with sole_owner(output, "build"):
        work, claim = WorkFolder(output), Claim(output, BUILD_NAME, _settings(options))
        if (finished := _finished(options, claim)) is not None:
            work.remove()
            return finished, True
        found = scan(options)
        claim.take(_inputs(found))
        work.create()
        with make_distributor(run.distributor, run.workers, run.ray_address) as distributor:
            records = _store_videos(found.videos, options, run.workers, distributor)
            failures = _write_failures(output, found, records)
            if not any(record.segments for record in records.values()):
                name, reason = failures[0]
                raise DataError(
                    f"no video of {len(failures)} can be used: {name}: {reason} ... see "
                    f"{output / FAILURES_NAME}"
                )
            parts = split_samples(found.videos, records, options)
            plans = {name: plan_shards(samples, options) for name, samples in parts.items()}
            shards = {
                name: _write_shards(plan, output / name, options, distributor)
                for name, plan in plans.items()
            }
        summary = Summary.of(
            records.values(),
            {name: Part.of(plan.lanes, shards[name]) for name, plan in plans.items()},
            options,
            failures=failures,
            ignored=found.ignored,
        )
        claim.complete(asdict(summary))
        for name, plan in plans.items():
            _write_index(options, output / name, plan, shards[name])
        work.remove()
    return summary, False


def _finished(options: BuildOptions, claim: Claim) -> Summary | None:
    """The summary of a finished build with the same settings.

    Raises:
        ConfigError: the folder was built, or begun, with other settings.
        DataError: the folder holds something else.
    """
    output = Path(options.output)
    if os.path.realpath(options.input) == os.path.realpath(output):
        raise ConfigError(f"--output {output} is the input: choose another folder")
    _, summary = claim.check()
    folders = [output / name for name in part_names(options)]
    for folder in folders:
        remove_partial(folder)
    if summary is None or not all((folder / INDEX_NAME).exists() for folder in folders):
        return None
    try:
        return Summary.from_dict(summary)
    except (TypeError, KeyError, AttributeError):
        raise DataError(f"{output / BUILD_NAME} is damaged: choose another folder") from None


def _settings(options: BuildOptions) -> dict[str, Any]:
    settings = options.as_dict()
    del settings["output"]  # a folder may be moved
    if options.lanes is None:
        del settings["lanes"]  # so that any fit; folders begun when the default was 96 go on
    return settings


def _inputs(found: Scan) -> str:
    """A hash of the videos' names and sizes."""
    sizes = [[video.name, os.path.getsize(video.path)] for video in found.videos]
    return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()


def _store_videos(
    videos: Sequence[Video], options: BuildOptions, workers: int, distributor: Distributor
) -> dict[str, VideoRecord]:
    """Records of all videos, by name; those that are there from before are not done again."""
    work = WorkFolder(Path(options.output))
    known = {video.name: work.video(video.name) for video in videos}
    records = {name: record for name, record in known.items() if record is not None}
    pending = [video for video in videos if video.name not in records]
    sizes = {video.name: os.path.getsize(video.path) for video in pending}
    pending.sort(key=lambda video: -sizes[video.name])  # the longest must not come last
    total = max(1, sum(sizes.values()))
    by_time = splits_by_time(videos, options)
    tasks = [
        # As many threads as its share of the work, so that one long film uses all cores.
        VideoTask(video, options, max(1, ceil(workers * sizes[video.name] / total)), by_time)
        for video in pending
    ]
    frames = 0
    with _bar("videos", len(videos), len(records)) as bar:
        for event in distributor.run(store_video, tasks):
            if isinstance(event, Progress):
                frames += event.amount
                bar.set_postfix_str(f"{frames} frames")
                continue
            records[event.task.name] = _record(event, work)
            bar.update()
    return {video.name: records[video.name] for video in videos}


def _record(event: Done, work: WorkFolder) -> VideoRecord:
    if event.crash is None:
        return event.result
    record = VideoRecord(event.task.name, 0.0, (), f"decoding it crashed: {event.crash}")
    work.put_video(record)
    return record


def _write_failures(
    output: Path, found: Scan, records: dict[str, VideoRecord]
) -> list[tuple[str, str]]:
    unreadable = [(each.name, each.failure) for each in records.values() if each.failure]
    failures = sorted([*found.failures, *unreadable])
    named = [*failures, *found.ignored]
    lines = [json.dumps({"source": name, "reason": reason}) + "\n" for name, reason in named]
    write_whole(output / FAILURES_NAME, "".join(lines).encode())
    return failures


def _write_shards(
    plan: Plan, folder: Path, options: BuildOptions, distributor: Distributor
) -> tuple[ShardEntry, ...]:
    folder.mkdir(exist_ok=True)
    extension = "npy" if options.codec == "raw" else "mp4"
    tasks = [ShardTask(shard, options.output, str(folder), extension) for shard in plan.shards]
    entries: dict[str, ShardEntry] = {}
    with _bar("shards", len(tasks), 0) as bar:
        for event in distributor.run(write_shard, tasks):
            if isinstance(event, Done):
                if event.crash is not None:
                    raise DataError(f"writing {event.task.shard.name} failed: {event.crash}")
                entries[event.result.name] = event.result
                bar.update()
    return tuple(entries[shard.name] for shard in plan.shards)


def _write_index(
    options: BuildOptions, folder: Path, plan: Plan, shards: tuple[ShardEntry, ...]
) -> None:
    """Write the index, whose presence says that the folder is complete."""
    fps = None if options.fps is None else float(options.fps)
    video = VideoSpec(options.clip_frames, options.height, options.width, fps)
    index = ShardIndex(video, options.codec_spec, plan.lanes, shards)
    write_whole(folder / INDEX_NAME, index.to_json().encode())


def _bar(what: str, total: int, done: int) -> ProgressBar:
    return ProgressBar(total=total, initial=done, desc=what, unit=f" {what}", bar_format=_BAR)


def _from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options, run = parse(arguments)
    try:
        summary, before = build(options, run)
    except KeyboardInterrupt:
        print("interrupted: run the same command again to go on", file=sys.stderr)
        return 130
    if before:
        print(f"{options.output} is already built")
    print(summary.text(_from_here(Path(options.output)), options.clip_frames))
    return 0


if __name__ == "__main__":
    sys.exit(main())
