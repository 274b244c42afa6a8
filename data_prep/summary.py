"""What a build gave, to read and to keep."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordtok.data.index import ShardEntry
from coordtok.errors import one_line
from data_prep.held_out import TRAIN, VAL
from data_prep.options import MEGABYTE, BuildOptions
from data_prep.work import VideoRecord, psnr

FAILURES_NAME = "failures.jsonl"
_MOST_NAMED = 8

Named = Sequence[tuple[str, str]]
"""Files and what is to be said of each."""


@dataclass(frozen=True)
class Part:
    """A folder of shards: all, or one of the sides of a split."""

    segments: int
    frames: int
    shards: int
    lanes: int
    bytes: int

    @classmethod
    def of(cls, lanes: int, shards: Sequence[ShardEntry]) -> "Part":
        samples = [sample for shard in shards for sample in shard.samples]
        frames = sum(sample.frames for sample in samples)
        size = sum(shard.bytes for shard in shards)
        return cls(len(samples), frames, len(shards), lanes, size)

    def text(self) -> str:
        size = f"{self.bytes / MEGABYTE:.1f} MB"
        return (
            f"{self.segments} segments, {self.frames} frames; {self.shards} shards in "
            f"{self.lanes} lanes, {size}"
        )


@dataclass(frozen=True)
class Summary:
    """Counts, size and quality. PSNR in dB is of what is stored against what was resized, over all
    pixels; None means that they are equal.

    parts: by their folders in the output; "" is the output itself. named: the first files of each
    kind that a person should know of, with the reasons.
    """

    videos: int
    failures: int
    ignored: int
    parts: Mapping[str, Part]
    psnr_luma: float | None
    psnr_rgb: float | None
    short: int = 0
    damaged: int = 0
    named: Mapping[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        records: Iterable[VideoRecord],
        parts: Mapping[str, Part],
        options: BuildOptions,
        *,
        failures: Named,
        ignored: Named,
    ) -> "Summary":
        """Add up what was stored."""
        used = [record for record in records if record.segments]
        segments = [segment for record in used for segment in record.segments]
        frames = sum(segment.frames for segment in segments)
        pixels = frames * options.height * options.width
        luma = sum(segment.error_luma for segment in segments) / 1024**2
        rgb = sum(segment.error_rgb for segment in segments)
        clip = options.clip_frames
        short = [
            (record.name, f"{record.frames} frames") for record in used if record.frames < clip
        ]
        damaged = [(record.name, record.damage) for record in used if record.damage is not None]
        kinds = {"failures": failures, "ignored": ignored, "short": short, "damaged": damaged}
        return cls(
            videos=len(used),
            failures=len(failures),
            ignored=len(ignored),
            parts=parts,
            psnr_luma=psnr(luma, pixels),
            psnr_rgb=psnr(rgb, pixels * 3),
            short=len(short),
            damaged=len(damaged),
            named={kind: _first(named) for kind, named in kinds.items()},
        )

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> "Summary":
        """What `asdict` gave; those of before had one part and named nothing. Raises TypeError or
        KeyError where it is none."""
        if "parts" not in stored:
            names = ("segments", "frames", "shards", "lanes", "bytes")
            stored = {**stored, "parts": {"": {name: stored[name] for name in names}}}
            stored = {name: value for name, value in stored.items() if name not in names}
        parts = {name: Part(**part) for name, part in stored["parts"].items()}
        return cls(**{**stored, "parts": parts})

    @property
    def segments(self) -> int:
        return sum(part.segments for part in self.parts.values())

    @property
    def frames(self) -> int:
        return sum(part.frames for part in self.parts.values())

    def text(self, output: Path, clip_frames: int) -> str:
        """Some lines for a person."""
        quality = "pixels exactly as resized"
        if self.psnr_rgb is not None and self.psnr_luma is not None:
            quality = f"PSNR {self.psnr_luma:.2f} dB luma, {self.psnr_rgb:.2f} dB RGB"
        lines = [f"{output}: {self.videos} videos"]
        lines += [f"  {name or 'shards'}: {part.text()}" for name, part in self.parts.items()]
        lines.append(f"  stored against resized: {quality}")
        kinds = (
            ("short", f"shorter than a clip of {clip_frames} frames, and filled up in training"),
            ("damaged", "taken up to their damage"),
            ("failures", "left out (--keep-damaged takes what comes before a damage)"),
            ("ignored", "no videos"),
        )
        for kind, what in kinds:
            count, named = getattr(self, kind), self.named.get(kind, [])
            if count:
                lines.append(f"  {what}: {count}")
                lines += [f"    {one_line(each)}" for each in named]
            if count > len(named) and kind in ("failures", "ignored"):
                lines.append(f"    ... all of them are in {output / FAILURES_NAME}")
            elif count > len(named):
                lines.append(f"    ... and {count - len(named)} more")
        if VAL in self.parts:
            lines.append(f"  to train: data.shards={output / TRAIN} data.val_shards={output / VAL}")
        return "\n".join(lines)


def _first(named: Named) -> list[str]:
    return [f"{name}: {text}" for name, text in named[:_MOST_NAMED]]
