"""How the clips to score are chosen: what a user may say about it, and what a report does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordtok.config.errors import ConfigError
from coordtok.data.index import ShardIndex
from coordtok.evaluation.clips import Clip, draw_clips, one_per_sample, read_clips


@dataclass(frozen=True)
class Sampling:
    """Which clips: one window of every sample, `clips` random ones, or those of a list."""

    clips: int | None = None
    seed: int = 0
    listed: Path | None = None

    def __post_init__(self) -> None:
        if self.clips is not None and self.listed is not None:
            raise ConfigError("clips and clip-list both say which clips to score; give one of them")
        if self.clips is not None and self.clips < 1:
            raise ConfigError(f"clips is {self.clips}; score at least 1")

    def choose(self, index: ShardIndex, frames: int) -> list[Clip]:
        if self.listed is not None:
            return read_clips(self.listed, index, frames)
        if self.clips is not None:
            return draw_clips(index, frames, self.clips, self.seed)
        return one_per_sample(index, frames, self.seed)

    def describe(self) -> dict[str, Any]:
        if self.listed is not None:
            return {"protocol": "clip list"}
        protocol = "one window of every sample" if self.clips is None else "random clips"
        return {"protocol": protocol, "seed": self.seed}
