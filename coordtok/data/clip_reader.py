"""Reads a list of clips in batches, shared among ranks so that no result depends on their number.

Batch b is always the same clips in the same places on any rank: of R ranks, rank r reads the
batches r, r + R, ... Only then is a network's output for a clip the same to the last bit. All ranks
have the same number of batches, all of one size, because forward passes are collective under
ZeRO-3: blank clips stand in for those that are missing or cannot be read.

Shapes: B clips of a batch, otherwise those of the sample reader.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch

from coordtok.data.clips import Clip, names
from coordtok.data.loader import Batch
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.sample import Item, SampleId, SampleReader, SkippedSample, read_info
from coordtok.data.shards import OpenedShards
from coordtok.data.workers import read_ahead
from coordtok.errors import ConfigError, one_line
from coordtok.scaling.memory_needs import check_memory


@dataclass
class ClipBatch(Batch):
    """Clips of a list, where `numbers` has their places; blank ones fill up the batch."""

    numbers: dict[int, int]
    """Place in the batch -> number in the list, of the clips that were read."""
    infos: dict[int, Mapping[str, Any]]
    """Place in the batch -> what the sample's KEY.json says."""


class ClipReader:
    """This rank's batches of a list of clips; each iteration reads them again."""

    def __init__(
        self,
        dataset: OpenedShards,
        clips: Sequence[Clip],
        read: SampleReader,
        *,
        batch: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        prefetch: int | None = None,
        by_shard: bool = False,
    ) -> None:
        """
        Args:
            workers: processes that read ahead; 0 reads in this one.
            prefetch: clips each worker reads ahead, by default a batch.
            by_shard: no batch has clips of two shards.

        Raises:
            ConfigError: `batch` is below 1 or more than memory holds, or `workers` below 0.
            DataError: samples that `read` cannot use.
        """
        if batch < 1 or workers < 0:
            raise ConfigError(f"batch is {batch} and workers {workers}; take at least 1 and 0")
        read.check(dataset.index, dataset.location)
        self._dataset, self._clips, self._read = dataset, clips, read
        self._size, self._prefetch = batch, prefetch or batch
        batches = _cut(clips, batch, by_shard)
        self._own = batches[rank::world_size]
        self._own += [()] * (-(-len(batches) // world_size) - len(self._own))
        self._workers = min(workers, sum(map(len, self._own)))
        held = batch + self._workers * self._prefetch
        check_memory(
            held * sum(np.asarray(each).nbytes for each in read.blank().values()),
            f"a batch of {batch} clips, and as many read ahead by {self._workers} workers,",
            "take a smaller batch",
        )

    def __len__(self) -> int:
        """Batches of each rank."""
        return len(self._own)

    def __iter__(self) -> Iterator[ClipBatch]:
        items = read_ahead(
            self._items, self._read.blank(), workers=self._workers, prefetch=self._prefetch
        )
        for own in self._own:
            yield self._batch(items, own)

    def _batch(self, items: Iterator[Item], own: Sequence[int]) -> ClipBatch:
        """The batch of the clips numbered `own`, which are the next items."""
        data = {
            name: torch.from_numpy(np.stack([value] * self._size))
            for name, value in self._read.blank().items()
        }
        ids = [SampleId(0, 0, "")] * self._size
        skipped: list[SkippedSample] = []
        numbers: dict[int, int] = {}
        infos: dict[int, Mapping[str, Any]] = {}
        for place, (number, item) in enumerate(zip(own, items)):
            ids[place] = item.id
            skipped += item.skipped
            if not item.skipped:
                # At once, because an item's arrays hold only until the next one.
                for name, value in data.items():
                    value[place] = torch.as_tensor(item.values[name])
                numbers[place], infos[place] = number, item.values["info"]
        return ClipBatch(data, tuple(ids), tuple(skipped), numbers, infos)

    def _items(self, worker: int, workers: int) -> Iterator[Item]:
        """What one of `workers` reads: they share this rank's clips in turns."""
        own = [self._clips[number] for batch in self._own for number in batch]
        held: tuple[tuple[int, int], StoredSample] | None = None
        try:
            for clip in own[worker::workers]:
                place = clip.shard, clip.sample
                # A stream only moves forwards: the next clip may be of the same sample.
                if held is None or held[0] != place:
                    held = place, self._dataset.reader.sample(*place)
                yield self._item(clip, held[1])
        finally:
            self._dataset.reader.close()

    def _item(self, clip: Clip, sample: StoredSample) -> Item:
        shard, key = names(clip, self._dataset.index)
        sample_id = SampleId(0, 0, key)
        try:
            values = {**self._read(sample, clip.start), "num_frames": clip.frames}
            return Item({**values, "info": read_info(sample)}, sample_id)
        except UnreadableSample as error:
            skipped = SkippedSample(self._dataset.location, shard, key, one_line(error))
            return Item(self._read.blank(), sample_id, (skipped,))


def _cut(clips: Sequence[Clip], size: int, by_shard: bool) -> list[Sequence[int]]:
    """The numbers of each batch's clips."""
    batches: list[Sequence[int]] = []
    for _, run in groupby(range(len(clips)), lambda n: clips[n].shard if by_shard else 0):
        numbers = list(run)
        batches += [numbers[first : first + size] for first in range(0, len(numbers), size)]
    return batches
