"""A sample on its way: what names it, what its KEY.json says, how it is read, what came of it.

The text of a KEY.json may come from anywhere, so nothing in it is relied on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from coordtok.config.models import NO_LABEL
from coordtok.data.index import MOST_FPS, MOST_INFO_BYTES, ShardIndex
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.order import Cursor
from coordtok.errors import one_line
from coordtok.storage.json_files import parse_json


class SampleId(NamedTuple):
    """What everything random about a sample is drawn from, with the seed."""

    lane: int
    epoch: int
    key: str


class SkippedSample(NamedTuple):
    """A sample that cannot be read, and why."""

    location: str
    shard: str
    key: str
    reason: str

    def __str__(self) -> str:
        return one_line(f"{self.key} in {self.shard} of {self.location}: {self.reason}")


class SampleReader(Protocol):
    """Turns a stored sample into arrays: video windows, latents ..."""

    @property
    def frames(self) -> int:
        """Of a window; a shorter sample is padded."""

    def check(self, index: ShardIndex, location: str) -> None:
        """Raise DataError if samples of this index cannot be what is asked for."""

    def __call__(self, sample: StoredSample, start: int) -> Mapping[str, Any]:
        """Arrays and numbers of the window from frame `start` on. Raises UnreadableSample."""

    def blank(self) -> Mapping[str, Any]:
        """Values in the form of every sample's, standing in for one that is missing."""


class Move(NamedTuple):
    """Where a lane goes on in a dataset."""

    dataset: int
    lane: int
    cursor: Cursor


@dataclass(frozen=True)
class Item:
    """One sample, read."""

    values: Mapping[str, Any]
    id: SampleId
    skipped: tuple[SkippedSample, ...] = ()
    move: Move | None = None
    """How it moves its lane, where it is part of the sequence."""


def read_info(sample: StoredSample) -> dict[str, Any]:
    """The contents of a sample's KEY.json; nothing where it has none.

    Raises:
        UnreadableSample: it is damaged.
    """
    if "json" not in sample.entry.files:
        return {}
    size = sample.entry.files["json"][1]
    if size > MOST_INFO_BYTES:
        raise UnreadableSample(f"its .json has {size} bytes, more than {MOST_INFO_BYTES}")
    try:
        info = parse_json(sample.read("json"), any_number=True)
    except ValueError as error:
        raise UnreadableSample(f"its .json is damaged ({error})") from None
    if not isinstance(info, dict):
        raise UnreadableSample(f"its .json is damaged (a {type(info).__name__}, no names)")
    return info


def rate_of(info: Mapping[str, Any]) -> float | None:
    """The frames per second that a KEY.json states, or None."""
    fps = info.get("fps")
    return fps if isinstance(fps, int | float) and 0 < fps <= MOST_FPS else None


def label_of(info: Mapping[str, Any]) -> int:
    """The class that a KEY.json names, or `NO_LABEL`."""
    label = info.get("class")
    return label if type(label) is int and 0 <= label < 1 << 63 else NO_LABEL
