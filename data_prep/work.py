"""The work folder inside the output: what is finished so far, so that a killed build goes on.

A video counts as finished once its record is there; records are written whole, after all segments
they speak of. A video without a record is done again, under the same names.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from math import log10
from pathlib import Path

from coordtok.config.load import build
from coordtok.errors import ConfigError
from coordtok.storage.files import write_whole
from coordtok.storage.json_files import read_json
from coordtok.storage.names import short_hash


@dataclass(frozen=True)
class Segment:
    """One stored stretch of a video. Squared errors are sums of exact integers.

    `error_rgb` is the sum over all values of (stored - resized)^2; `error_luma` that of BT.709 luma
    over all pixels, in units of 1/1024^2.
    """

    key: str
    start: int
    frames: int
    bytes: int
    error_rgb: int
    error_luma: int


@dataclass(frozen=True)
class VideoRecord:
    """What became of a video: its segments, or why it was left out.

    damage: why it ends too early, where that was kept. held_out_from: the first of its frames that
    is held out, where that is decided by time.
    """

    name: str
    fps: float
    segments: tuple[Segment, ...]
    failure: str | None = None
    damage: str | None = None
    held_out_from: int | None = None

    @property
    def frames(self) -> int:
        return sum(segment.frames for segment in self.segments)


class WorkFolder:
    """Paths and records below OUTPUT/.work."""

    def __init__(self, output: Path) -> None:
        self.root = output / ".work"

    def create(self) -> None:
        for name in ("videos", "segments"):
            for part in range(256):
                (self.root / name / f"{part:02x}").mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def segment(self, key: str) -> Path:
        """Where a segment's encoded frames wait to be put into a shard."""
        return self._path("segments", key)

    def video(self, name: str) -> VideoRecord | None:
        """The record of a finished video; None where there is none, or a damaged one."""
        try:
            return build(VideoRecord, read_json(self._path("videos", name)))
        except (FileNotFoundError, ValueError, ConfigError):
            return None

    def put_video(self, record: VideoRecord) -> None:
        write_whole(self._path("videos", record.name), json.dumps(asdict(record)).encode())

    def _path(self, kind: str, name: str) -> Path:
        """Spread over 256 folders, because a dataset may have millions of files."""
        digest = short_hash(name)
        return self.root / kind / digest[:2] / digest


def psnr(squared_error: float, values: float) -> float | None:
    """PSNR in dB of 8-bit values from a sum of squared errors; None where nothing differs."""
    return 10 * log10(255**2 * values / squared_error) if squared_error else None
