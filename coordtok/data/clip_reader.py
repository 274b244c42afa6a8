"""Reads a list of clips in batches, shared among ranks so that no result depends on their number.

Batch b is always the same clips in the same places, whoever reads it: of R ranks, rank r reads the
batches r, r + R, ... Only then is a network's output for a clip the same to the last bit.

Shapes: B clips of a batch, T frames, H rows, W columns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from coordtok.data.clips import Clip, names
from coordtok.data.loader import OpenedShards, SampleId, SkippedSample, VideoWindows
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.sequence import Item
from coordtok.data.workers import read_ahead
from coordtok.errors import ConfigError, one_line


@dataclass
class ClipBatch:
    """Clips that are there; black ones fill up the batch."""

    video_BTHW3: torch.Tensor
    """uint8."""
    frames_B: list[int]
    """Real frames of each; the rest is padding."""
    numbers: dict[int, int]
    """Place in the batch -> number in the list, of those that could be read."""
    skipped: list[SkippedSample] = field(default_factory=list)


class ClipReader:
    """This rank's batches of a list of clips; each iteration reads them again."""

    def __init__(
        self,
        source: OpenedShards,
        clips: Sequence[Clip],
        read: VideoWindows,
        *,
        batch: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> None:
        """workers: processes that read ahead, a batch each; 0 reads in this one.

        Raises:
            DataError: samples of another size than `read` takes.
        """
        if batch < 1 or workers < 0:
            raise ConfigError(f"batch is {batch} and workers {workers}; take at least 1 and 0")
        read.check(source.index, source.location)
        self._source, self._clips, self._read = source, clips, read
        self._batch, self._workers = batch, workers
        self._own = range(rank * batch, len(clips), world_size * batch)

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self._own)

    def __iter__(self) -> Iterator[ClipBatch]:
        items = read_ahead(
            self._items, self._read.blank(), workers=self._workers, prefetch=self._batch
        )
        for first in self._own:
            yield self._next(items, first)

    def _next(self, items: Iterator[Item], first: int) -> ClipBatch:
        """The batch that begins with clip `first`."""
        blank = self._read.blank()["video"]
        video = torch.from_numpy(np.stack([blank] * self._batch))
        batch = ClipBatch(video, [self._read.frames] * self._batch, {})
        for place in range(min(self._batch, len(self._clips) - first)):
            item = next(items)
            batch.skipped += item.skipped
            if not item.skipped:
                video[place] = torch.from_numpy(item.values["video"])
                batch.frames_B[place] = self._clips[first + place].frames
                batch.numbers[place] = first + place
        return batch

    def _items(self, worker: int, workers: int) -> Iterator[Item]:
        """What one of `workers` reads: they share this rank's clips in turns."""
        own = [n for first in self._own for n in range(first, first + self._batch)]
        held: tuple[tuple[int, int], StoredSample] | None = None
        try:
            for number in own[worker::workers]:
                if number < len(self._clips):
                    clip = self._clips[number]
                    place = (clip.shard, clip.sample)
                    # A stream only moves forwards: the next clip may be of the same sample.
                    if held is None or held[0] != place:
                        held = place, self._source.reader.sample(*place)
                    yield self._item(clip, held[1])
        finally:
            self._source.reader.close()

    def _item(self, clip: Clip, sample: StoredSample) -> Item:
        shard, key = names(clip, self._source.index)
        sample_id = SampleId(0, 0, key)
        try:
            return Item(self._read.at(clip.start, sample), sample_id)
        except UnreadableSample as error:
            skipped = SkippedSample(self._source.location, shard, key, one_line(error))
            return Item(self._read.blank(), sample_id, (skipped,))
