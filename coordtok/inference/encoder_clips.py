"""Windows of video, read ahead in processes of their own while the tokenizer encodes others.

Shapes: B clips of a batch, T frames, H rows, W columns.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from coordtok.data.index import ShardIndex
from coordtok.data.info import read_info
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.sequence import Item, SampleId, SkippedSample
from coordtok.data.shards import OpenedShards
from coordtok.data.video_reader import VideoWindows
from coordtok.data.workers import read_ahead
from coordtok.errors import one_line
from coordtok.inference.window_choice import Window
from coordtok.storage.names import safe_name


@dataclass(frozen=True)
class ClipSource:
    """Reads windows of some opened video shards."""

    source: OpenedShards
    read: VideoWindows

    def clips(self, windows: Sequence[Window], *, workers: int, prefetch: int) -> Iterator[Item]:
        """The windows in order, as `read` gives them with the `info` of their KEY.json, the name
        of each its latent's; one that cannot be read is blank and says why in `skipped`.

        workers: processes, each `prefetch` windows ahead; 0 reads in this one.
        """

        def series(worker: int, step: int) -> Iterator[Item]:
            return self._series(windows[worker::step])

        return read_ahead(series, self.read.blank(), workers=workers, prefetch=prefetch)

    @property
    def index(self) -> ShardIndex:
        return self.source.index

    def _series(self, windows: Iterable[Window]) -> Iterator[Item]:
        place, sample = (-1, -1), None
        try:
            for window in windows:
                # A stream only moves forwards, and the next window is often of the same sample.
                if sample is None or place != window[:2]:
                    place = window[:2]
                    sample = self.source.reader.sample(*place)
                yield self._item(window, sample)
        finally:
            self.source.reader.close()

    def _item(self, window: Window, sample: StoredSample) -> Item:
        key = sample.entry.key
        sample_id = SampleId(0, 0, f"{safe_name(key)}-f{window.start:06d}")
        try:
            values = self.read.at(window.start, sample)
            info = _latent_info(read_info(sample), key, window.start, values["num_frames"])
        except UnreadableSample as error:
            shard = self.index.shards[window.shard].name
            skipped = SkippedSample(self.source.location, shard, key, one_line(error))
            return Item(self.read.blank(), sample_id, (skipped,))
        return Item({**values, "info": info}, sample_id)


class ClipBatch(NamedTuple):
    """Clips that are encoded together; those behind `keys` only fill the batch up."""

    video_BTHW3: torch.Tensor
    """uint8; overwritten by the next batch."""
    num_frames: list[int]
    keys: list[str]
    infos: list[dict[str, Any]]


def batches(items: Iterable[Item], size: int, skipped: list[SkippedSample]) -> Iterator[ClipBatch]:
    """Readable items, `size` at a time; the last batch is filled up with its last clip.

    A forward pass is thus always of one shape, and what it gives depends on nothing but the items.
    Samples with unreadable windows are added to `skipped`, once each.
    """
    room: torch.Tensor | None = None
    frames: list[int] = []
    keys: list[str] = []
    infos: list[dict[str, Any]] = []
    for item in items:
        if item.skipped:
            if not skipped or skipped[-1][:3] != item.skipped[0][:3]:
                skipped += item.skipped
            continue
        video = torch.from_numpy(item.values["video"])
        if room is None:
            room = torch.empty((size, *video.shape), dtype=video.dtype)
        room[len(keys)] = video  # at once: an item's arrays hold only until the next one
        frames.append(item.values["num_frames"])
        keys.append(item.id.key)
        infos.append(item.values["info"])
        if len(keys) == size:
            yield ClipBatch(room, frames, keys, infos)
            frames, keys, infos = [], [], []
    if room is not None and keys:
        missing = size - len(keys)
        room[len(keys) :] = room[len(keys) - 1]
        yield ClipBatch(room, frames + frames[-1:] * missing, keys, infos)


def _latent_info(stored: Mapping[str, Any], key: str, start: int, frames: int) -> dict[str, Any]:
    """What a latent's KEY.json says: where in its source the clip lies, and the video's class."""
    first, fps = stored.get("start_frame"), stored.get("fps")
    return {
        "source": _text(stored.get("source")) or key,
        "start_frame": (first if type(first) is int and first >= 0 else 0) + start,
        "frames": frames,
        "fps": fps if isinstance(fps, int | float) and 0 < fps < math.inf else None,
        "class": stored.get("class") if type(stored.get("class")) is int else None,
        "class_name": _text(stored.get("class_name")),
        "split": _text(stored.get("split")),
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
