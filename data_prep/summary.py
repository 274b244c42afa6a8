"""What a build gave, to read and to keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coordtok.data.index import ShardEntry
from data_prep.options import MEGABYTE
from data_prep.work import VideoRecord, psnr


@dataclass(frozen=True)
class Summary:
    """Counts, size and quality. PSNR in dB is of what is stored against what was resized, over all
    pixels; None means that they are equal."""

    videos: int
    failures: int
    ignored: int
    segments: int
    frames: int
    shards: int
    lanes: int
    bytes: int
    psnr_luma: float | None
    psnr_rgb: float | None

    @classmethod
    def of(
        cls,
        records: Sequence[VideoRecord],
        *,
        failures: int,
        ignored: int,
        lanes: int,
        shards: Sequence[ShardEntry],
        pixels: int,
    ) -> "Summary":
        """Add up what was stored; `pixels` are those of one frame."""
        segments = [segment for record in records for segment in record.segments]
        frames = sum(segment.frames for segment in segments)
        luma = sum(segment.error_luma for segment in segments) / 1024**2
        rgb = sum(segment.error_rgb for segment in segments)
        return cls(
            videos=sum(bool(record.segments) for record in records),
            failures=failures,
            ignored=ignored,
            segments=len(segments),
            frames=frames,
            shards=len(shards),
            lanes=lanes,
            bytes=sum(shard.bytes for shard in shards),
            psnr_luma=psnr(luma, frames * pixels),
            psnr_rgb=psnr(rgb, frames * pixels * 3),
        )

    def text(self, output: Path) -> str:
        """Some lines for a person."""
        quality = "pixels exactly as resized"
        if self.psnr_rgb is not None and self.psnr_luma is not None:
            quality = f"PSNR {self.psnr_luma:.2f} dB luma, {self.psnr_rgb:.2f} dB RGB"
        lines = [
            f"{output}: {self.videos} videos, {self.segments} segments, {self.frames} frames",
            f"  {self.shards} shards in {self.lanes} lanes, {self.bytes / MEGABYTE:.1f} MB",
            f"  stored against resized: {quality}",
        ]
        if self.failures:
            lines.append(f"  left out: {self.failures} videos, named in {output}/failures.jsonl")
        if self.ignored:
            lines.append(f"  ignored: {self.ignored} files that are no videos by their name")
        return "\n".join(lines)
