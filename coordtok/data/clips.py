"""Which clips of a dataset are read where each is read once: validated, scored, encoded, measured.

    one_per_sample   a window of every sample: validation, evaluation
    draw_clips       some random windows, spread evenly over the samples: evaluation
    WindowChoice     of each sample all consecutive windows, or some random ones: encoding
    read_clips       the list of an earlier evaluation

Pure functions of the shards' index and a seed; `clip_reader` reads what they choose. A list is a
CSV file with a line a clip (`COLUMNS`), in the order of the index, so that anyone with the same
shards can score exactly the same frames. No torch.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coordtok.data.index import SampleEntry, ShardIndex
from coordtok.data.order import draw_start, sample_rng
from coordtok.errors import ConfigError, DataError
from coordtok.storage.files import MOST_TEXT_BYTES, read_whole

COLUMNS = ("shard", "key", "start", "frames")
ALL = "all"
_MOST_DIGITS = 12
MOST_WINDOWS = 10_000


class Clip(NamedTuple):
    """`frames` consecutive frames of a stored sample, from `start` on."""

    shard: int
    """Place of the shard in the index, and of the sample in the shard."""
    sample: int
    start: int
    frames: int


@dataclass(frozen=True)
class ClipChoice:
    """What a user may say: one window of every sample, `number` random ones, or those of a list."""

    number: int | None = None
    seed: int = 0
    listed: Path | None = None

    def __post_init__(self) -> None:
        if self.number is not None and self.listed is not None:
            raise ConfigError("clips and clip-list both say which clips to score; give one of them")
        if self.number is not None and self.number < 1:
            raise ConfigError(f"clips is {self.number}; score at least 1")

    def choose(self, index: ShardIndex, frames: int) -> list[Clip]:
        """The clips, of `frames` frames or fewer. Raises a `UserError` if there are none."""
        if self.listed is not None:
            return read_clips(self.listed, index, frames)
        if self.number is not None:
            return draw_clips(index, frames, self.number, self.seed)
        return one_per_sample(index, frames, self.seed)

    def describe(self) -> dict[str, Any]:
        if self.listed is not None:
            return {"protocol": "clip list"}
        protocol = "one window of every sample" if self.number is None else "random clips"
        return {"protocol": protocol, "seed": self.seed}


@dataclass(frozen=True)
class WindowChoice:
    """All consecutive windows of each sample, or some at random.

    All: one after the other; where frames are left over, one more window ends with the last frame
    and overlaps the one before it, so that every frame is in a window and every window is full.
    `count`: drawn at random with `seed`, none twice; fewer in a sample that has fewer. A sample
    shorter than a window is one clip either way, even one without a frame, so that it is named
    when it cannot be read.
    """

    count: int | None = None
    """None is all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count is not None and not 1 <= self.count <= MOST_WINDOWS:
            raise ConfigError(
                f"windows is {self.count}; take 1 to {MOST_WINDOWS:,} of a video, or {ALL!r}"
            )

    @classmethod
    def parse(cls, text: str, seed: int) -> "WindowChoice":
        """From "all" or a number."""
        if text != ALL and not re.fullmatch(f"[0-9]{{1,{_MOST_DIGITS}}}", text):
            raise ConfigError(f"windows is {text[:40]!r}; give {ALL!r} or how many of each video")
        return cls(None if text == ALL else int(text), seed)

    def __str__(self) -> str:
        return ALL if self.count is None else str(self.count)

    def of_shard(self, index: ShardIndex, shard: int, frames: int) -> list[Clip]:
        """The clips, of `frames` frames or fewer, in the order in which they lie in the shard."""
        return [
            Clip(shard, sample, start, min(frames, entry.frames))
            for sample, entry in enumerate(index.shards[shard].samples)
            for start in self.starts(entry, frames)
        ]

    def starts(self, sample: SampleEntry, frames: int) -> list[int]:
        """The first frames of a sample's windows, in increasing order."""
        last = max(sample.frames - frames, 0)
        if self.count is None:
            return sorted({*range(0, last, frames), last})
        return sorted({self._draw(sample, frames, number) for number in range(self.count)})

    def _draw(self, sample: SampleEntry, frames: int, number: int) -> int:
        rng = sample_rng(self.seed, 0, number, sample.key, "latent window")
        return draw_start(rng, sample.frames, frames)


def one_per_sample(index: ShardIndex, frames: int, seed: int) -> list[Clip]:
    """A window of every sample, `frames` long, or all of a shorter sample; samples without a frame
    are left out.

    Raises:
        DataError: there is no other.
    """
    clips = []
    for shard, sample, entry in _places(index):
        if count := min(frames, entry.frames):
            rng = sample_rng(seed, 0, 0, entry.key, "window")
            clips.append(Clip(shard, sample, draw_start(rng, entry.frames, frames), count))
    if not clips:
        raise DataError("no sample of the shards has a frame; build them again")
    return clips


def draw_clips(index: ShardIndex, frames: int, number: int, seed: int) -> list[Clip]:
    """`number` different windows of exactly `frames` frames, spread evenly over the samples.

    Samples come in a random order, each once before any comes again; a window's place in its sample
    is uniform and none is taken twice. Samples shorter than `frames` are left out.

    Raises:
        DataError: there are not as many windows.
    """
    places = list(_places(index))
    windows = np.array([max(0, entry.frames - frames + 1) for _, _, entry in places])
    if number > windows.sum():
        if not windows.any():
            raise DataError(f"no sample of the shards has {frames} frames; leave out --clips")
        raise DataError(
            f"{number} clips of {frames} frames are more than the {windows.sum()} different ones "
            "that the shards hold; ask for fewer clips"
        )
    order = sample_rng(seed, 0, 0, "", "clip order").permutation(len(places))
    clips = []
    for (shard, sample, entry), count, possible in zip(
        places, _share(windows, order, number), windows
    ):
        rng = sample_rng(seed, 0, 0, f"{index.shards[shard].name}/{entry.key}", "clips")
        starts = sorted(rng.choice(possible, count, replace=False).tolist()) if count else []
        clips += [Clip(shard, sample, start, frames) for start in starts]
    return clips


def to_csv(clips: Iterable[Clip], index: ShardIndex) -> str:
    """The list as a file that `read_clips` reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for clip in clips:
        writer.writerow((*names(clip, index), clip.start, clip.frames))
    return text.getvalue()


def names(clip: Clip, index: ShardIndex) -> tuple[str, str]:
    """The file name of a clip's shard and the key of its sample."""
    shard = index.shards[clip.shard]
    return shard.name, shard.samples[clip.sample].key


def read_clips(path: Path, index: ShardIndex, frames: int) -> list[Clip]:
    """The clips of a list, in the order of the shards.

    Raises:
        DataError: no such list, or clips that these shards do not hold or that are longer than
            `frames`, or one clip twice.
    """
    places = {
        (index.shards[shard].name, entry.key): (shard, sample, entry.frames)
        for shard, sample, entry in _places(index)
    }
    clips = []
    for line, row in enumerate(_rows(path), 2):
        where = f"line {line} of {path}"
        place = places.get((row["shard"], row["key"]))
        if place is None:
            raise DataError(
                f"{where}: sample {row['key']!r} of {row['shard']!r} is not in the shards; score "
                "the shards that the list was drawn from"
            )
        start, count = _number(row["start"], where), _number(row["frames"], where)
        _check_frames(start, count, stored=place[2], most=frames, where=where)
        clips.append(Clip(place[0], place[1], start, count))
    if repeated := [clip for clip, times in Counter(clips).items() if times > 1]:
        raise DataError(f"{path} lists {names(repeated[0], index)[1]!r} twice; list each clip once")
    return sorted(clips)


def _places(index: ShardIndex) -> Iterable[tuple[int, int, SampleEntry]]:
    for shard, entry in enumerate(index.shards):
        for sample, stored in enumerate(entry.samples):
            yield shard, sample, stored


def _share(windows: np.ndarray, order: np.ndarray, number: int) -> np.ndarray:
    """How many of `number` clips each sample gives, dealt in rounds along `order`."""
    counts = np.zeros_like(windows)
    while number:
        willing = order[counts[order] < windows[order]][:number]
        counts[willing] += 1
        number -= len(willing)
    return counts


def _rows(path: Path) -> Sequence[dict[str, str]]:
    try:
        # "-sig": spreadsheets put a mark before the first name.
        text = read_whole(path, MOST_TEXT_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path} cannot be read as a list of clips ({reason}); name the clips.csv of an "
            "evaluation"
        ) from None
    if not rows or not set(COLUMNS) <= set(reader.fieldnames or ()):
        raise DataError(f"{path} is no list of clips: a CSV file with {','.join(COLUMNS)} on top")
    return rows


def _number(text: str | None, where: str) -> int:
    if text is None or not text.isdecimal() or len(text) > _MOST_DIGITS:
        shown = text and text[:40]
        raise DataError(f"{where}: {shown!r} is no number of frames; write it in digits")
    return int(text)


def _check_frames(start: int, count: int, *, stored: int, most: int, where: str) -> None:
    if count < 1 or start + count > stored:
        raise DataError(
            f"{where}: frames {start} to {start + count} of a sample of {stored}; score the "
            "shards that the list was drawn from"
        )
    if count > most:
        raise ConfigError(f"{where}: {count} frames, but the model takes at most {most} at once")
