"""A video and what a tokenizer makes of it, as files: to look at, and in figures.

FOLDER/  side_by_side.mp4     the source, as it was encoded, left; the reconstruction right
         reconstruction.mp4   the reconstruction alone
         report.json          a `Report`
"""

import json
import logging
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch

from coordtok.errors import one_line
from coordtok.evaluation.metrics import psnr
from coordtok.geometry.groups import Grouping
from coordtok.geometry.latent import LatentShape
from coordtok.geometry.pixels import from_uint8
from coordtok.inference.frame_range import FrameRange
from coordtok.inference.reconstruct import (
    Decoding,
    Fit,
    Reconstruction,
    reconstruct,
)
from coordtok.inference.windows import frames_to_read, naming
from coordtok.models.tokenizer import CoordTok
from coordtok.progress import ProgressBar
from coordtok.storage.files import whole_folder
from coordtok.video.mp4 import Mp4Writer
from coordtok.video.source import SourceVideo, open_video

logger = logging.getLogger(__name__)

BITS = 16
"""Of one stored number of a plane: latents are kept in bfloat16."""
_DEFINITIONS = {
    "psnr": "dB, mean over the frames; of 8-bit RGB before it became mp4",
    "tokens": "positions of the planes: clips x (T'H' + T'W' + content planes x H'W')",
    "bits_per_pixel": f"numbers of the planes x {BITS} / (encoded frames x height x width)",
}


@dataclass
class Report:
    """What `report.json` says."""

    video: str
    fit: Fit
    selection: str | None
    """Wanted frames as START:END:STEP; None is all. A STEP that is not whole decodes in between."""
    hdr: str | None
    """PQ or HLG where the source has such a transfer curve: its numbers were taken as they are."""
    grouping: Grouping
    points_per_pass: int
    fps: float
    """Of the source; the files have as many a second as play at its speed."""
    channels: int | dict[str, int]
    height: int = 0
    width: int = 0
    frames: int = 0
    """Of the source, reconstructed; `encoded` counts all that the windows with one of them hold."""
    in_between: int = 0
    """Reconstructed where the source has no frame; not part of any score."""
    encoded: int = 0
    windows: int = 0
    clips: int = 0
    """Encoder passes: windows x tiles."""
    tokens: int = 0
    bits_per_pixel: float = 0.0
    psnr: float = 0.0
    worst_frame: int = -1
    worst_psnr: float = float("inf")

    def add(self, part: Reconstruction, latent: LatentShape) -> None:
        """Count a window in."""
        self.height, self.width = part.output.shape[1:3]
        self.windows += 1
        self.encoded += part.encoded
        self.clips += part.clips
        self.tokens = self.clips * latent.positions
        pixels = self.encoded * self.height * self.width
        self.bits_per_pixel = self.clips * latent.numbers * BITS / pixels
        for time, original, output in zip(part.times, part.original, part.output):
            if time.denominator == 1:
                self._score(int(time), _psnr(output, original))
            else:
                self.in_between += 1

    def _score(self, number: int, score: float) -> None:
        self.frames += 1
        self.psnr += (score - self.psnr) / self.frames
        if score < self.worst_psnr:
            self.worst_frame, self.worst_psnr = number, score

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "definitions": _DEFINITIONS}, indent=2) + "\n"


def write_reconstruction(
    model: CoordTok,
    path: str | Path,
    folder: Path,
    *,
    fit: Fit = "crop",
    frames: FrameRange | None = None,
    decoding: Decoding | None = None,
    progress: bool = False,
) -> Report:
    """Reconstruct a video (see `reconstruct`) into the new `folder`, which appears when complete.

    Raises:
        UserError: as `reconstruct`, or the folder cannot be written.
    """
    with naming(path):
        video = open_video(path)
    if video.hdr:
        logger.warning(
            "%s is HDR (%s) and is not tone-mapped: pictures look flat, and PSNR is of its numbers "
            "as they are; convert it to SDR first to avoid that",
            one_line(path),
            video.hdr,
        )
    wanted, how = frames or FrameRange(), decoding or Decoding()
    report = Report(
        video=str(path),
        fit=fit,
        selection=None if frames is None else str(frames),
        hdr=video.hdr,
        grouping=how.grouping,
        points_per_pass=how.points_per_pass or model.points_per_pass,
        fps=float(video.fps),
        channels=channels_of(model.config.latent),
    )
    rate = video.fps / wanted.step
    with (
        whole_folder(folder) as part,
        _writer(part, "side_by_side.mp4", folder, rate) as both,
        _writer(part, "reconstruction.mp4", folder, rate) as alone,
        _bar(video, wanted, model.config.frames, progress) as bar,
    ):
        for window in reconstruct(
            model, video, fit=fit, frames=frames, decoding=how, on_read=bar.update
        ):
            report.add(window, model.config.latent)
            for original, output in zip(window.original, window.output):
                both.write(np.concatenate([original, output], axis=1))
                alone.write(output)
        (part / "report.json").write_text(report.to_json(), encoding="utf-8")
    return report


def _writer(part: Path, name: str, folder: Path, rate: Fraction) -> Mp4Writer:
    return Mp4Writer(part / name, rate, becomes=folder / name)


def channels_of(latent: LatentShape) -> int | dict[str, int]:
    """Numbers at each position: one figure where it is the same for all planes."""
    every = set(latent.channels.values())
    return every.pop() if len(every) == 1 else latent.channels


def _psnr(output_HW3: np.ndarray, original_HW3: np.ndarray) -> float:
    output, original = (from_uint8(torch.from_numpy(each)) for each in (output_HW3, original_HW3))
    return psnr(output[None], original[None])


def _bar(video: SourceVideo, wanted: FrameRange, length: int, progress: bool) -> ProgressBar:
    """Counts the frames read: all, or to the end of the last window with a wanted frame."""
    ends = [end for end in (video.promised_frames, frames_to_read(wanted, length)) if end]
    return ProgressBar(total=min(ends, default=None), unit="frame", disable=not progress)
