"""Segments into tar shards.

A shard takes its name only when it is whole, and its segments are deleted only after that, so at
any time every sample is in the work folder or in a finished shard.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coordtok.data.index import ShardEntry
from coordtok.data.tars import index_tar, write_tar
from coordtok.errors import DataError
from coordtok.storage.files import whole_file
from data_prep.segments import Report
from data_prep.shard_plan import PlannedShard, Sample
from data_prep.work import WorkFolder


@dataclass(frozen=True)
class ShardTask:
    """One shard to write into `folder`, of the build into `output`; `extension` is that of the
    encoded frames."""

    shard: PlannedShard
    output: str
    folder: str
    extension: str


def write_shard(task: ShardTask, report: Report) -> ShardEntry:
    """Write a shard, or find it finished; its segments are gone from the work folder afterwards.

    Raises:
        DataError: the disk is full, or segments are missing.
    """
    work = WorkFolder(Path(task.output))
    path = Path(task.folder) / task.shard.name
    if not path.exists():
        with whole_file(path) as file:
            write_tar(file, _members(work, task))
    entry = index_tar(path)
    if [sample.key for sample in entry.samples] != [sample.key for sample in task.shard.samples]:
        raise DataError(f"{path} holds other samples than planned: delete it and its folder")
    for sample in task.shard.samples:
        work.segment(sample.key).unlink(missing_ok=True)
    report(1)
    return entry


def _members(work: WorkFolder, task: ShardTask) -> Iterator[tuple[str, bytes]]:
    for sample in task.shard.samples:
        yield f"{sample.key}.{task.extension}", _encoded(work, sample)
        yield f"{sample.key}.json", sample.info.encode()


def _encoded(work: WorkFolder, sample: Sample) -> bytes:
    data = work.segment(sample.key)
    if not data.exists() or data.stat().st_size != sample.bytes:
        raise DataError(
            f"the segment {sample.key} is gone from {work.root}: delete the output folder and "
            "start again"
        )
    return data.read_bytes()
