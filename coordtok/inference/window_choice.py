"""Which windows of each video become latents: a pure function of the index and the choice."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from coordtok.data.index import SampleEntry, ShardIndex
from coordtok.data.order import sample_rng
from coordtok.data.video_reader import draw_start
from coordtok.errors import ConfigError

ALL = "all"


class Window(NamedTuple):
    """A window of a stored video: the place of its shard in the index, of the video in the shard,
    and of its first frame in the video."""

    shard: int
    sample: int
    start: int


@dataclass(frozen=True)
class WindowChoice:
    """All consecutive windows of a video, or some at random.

    All: one after the other; where frames are left over, one more window ends with the last frame
    and overlaps the one before it, so that every frame is in a window and every window is full.
    `count`: drawn at random with `seed`, none twice; fewer in a video that has fewer. A video
    shorter than a window is one padded window either way.
    """

    count: int | None = None
    """None is all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ConfigError(f"windows is {self.count}; take at least 1 of a video, or {ALL!r}")

    @classmethod
    def parse(cls, text: str, seed: int) -> "WindowChoice":
        """From "all" or a number."""
        if text != ALL and not (text.isascii() and text.isdecimal()):
            raise ConfigError(f"windows is {text!r}; give {ALL!r} or how many of each video")
        return cls(None if text == ALL else int(text), seed)

    def __str__(self) -> str:
        return ALL if self.count is None else str(self.count)

    def starts(self, video: SampleEntry, length: int) -> list[int]:
        """The first frames of a video's windows of `length` frames, in increasing order."""
        last = max(video.frames - length, 0)
        if self.count is None:
            return sorted({*range(0, last, length), last})
        return sorted({self._draw(video, length, number) for number in range(self.count)})

    def of_shard(self, index: ShardIndex, shard: int, length: int) -> Iterator[Window]:
        """The windows of a shard's videos, in the order in which they lie there."""
        for sample, entry in enumerate(index.shards[shard].samples):
            for start in self.starts(entry, length):
                yield Window(shard, sample, start)

    def _draw(self, video: SampleEntry, length: int, number: int) -> int:
        rng = sample_rng(self.seed, 0, number, video.key, "latent window")
        return draw_start(rng, video.frames, length)
