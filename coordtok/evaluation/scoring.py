"""A tokenizer scored on clips: each is encoded, decoded and compared with itself.

Padding that fills up a short clip is cut off before anything is measured.

Shapes: B clips of a batch, T frames, S shown frames, H rows, W columns, 3 colours.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from heapq import nsmallest
from typing import NamedTuple

import numpy as np
import torch

from coordtok.data.clip_reader import ClipBatch
from coordtok.data.sample import SkippedSample
from coordtok.errors import CheckpointError
from coordtok.evaluation.clip_features import FeatureSets, FeatureTaker
from coordtok.evaluation.linear_codec import LinearCodec
from coordtok.evaluation.metrics import motion, psnr, psnr_of_mean_frame, ssim
from coordtok.geometry.pixels import from_uint8, to_uint8
from coordtok.inference.reconstruct import Decoding
from coordtok.losses.perceptual import PerceptualDistance
from coordtok.models.tokenizer import CoordTok

SHOWN_FRAMES = 8


class ClipScore(NamedTuple):
    """What was measured of a clip; None where it was not asked for."""

    number: int
    """In the list of clips."""
    psnr: float
    ssim: float | None
    perceptual: float | None
    motion: float
    psnr_mean_frame: float = math.nan
    """Of showing the clip's mean frame."""
    psnr_linear_codec: float | None = None


class Pictures(NamedTuple):
    """A look at a clip: (S, H, W, 3) uint8 each, frames spread over it."""

    score: ClipScore
    original: np.ndarray
    output: np.ndarray


@dataclass(frozen=True)
class Measures:
    """What is measured beside PSNR and motion."""

    ssim: bool = True
    perceptual: PerceptualDistance | None = None
    features: FeatureTaker | None = None
    linear_codec: LinearCodec | None = None
    """Another codec whose PSNR stands beside the model's."""
    shown: int = 1
    """Clips kept to look at, of the worst and of the best by PSNR."""


@dataclass
class Scores:
    """Everything found out about this rank's clips."""

    clips: list[ClipScore] = field(default_factory=list)
    skipped: list[SkippedSample] = field(default_factory=list)
    pictures: dict[int, Pictures] = field(default_factory=dict)
    """By number of the clip: of the worst and of the best."""
    original_features: FeatureSets = field(default_factory=dict)
    output_features: FeatureSets = field(default_factory=dict)


def score_batch(
    scores: Scores, model: CoordTok, batch: ClipBatch, decoding: Decoding, measures: Measures
) -> None:
    """Score the clips of a batch and put what is found into `scores`.

    Raises:
        CheckpointError: the model's output is not finite.
        DataError: the features are not.
    """
    scores.skipped += batch.skipped
    video_BTHW3, frames_B = batch.data["video"], batch.data["num_frames"].tolist()
    output_BTHW3 = _reconstruct(model, batch, decoding)
    linear_BTHW3 = None
    if measures.linear_codec is not None:
        linear_BTHW3 = measures.linear_codec.reconstruct(video_BTHW3)
    for place, number in batch.numbers.items():
        pair = output_BTHW3[place, : frames_B[place]], video_BTHW3[place, : frames_B[place]]
        score = _score(number, *pair, measures)
        if linear_BTHW3 is not None:
            linear_THW3 = linear_BTHW3[place, : frames_B[place]]
            score = score._replace(psnr_linear_codec=psnr(linear_THW3, from_uint8(pair[1])))
        scores.clips.append(score)
        _keep_picture(scores, score, pair, measures.shown)
    if measures.features is not None:
        measures.features.add(scores.original_features, batch)
        output = replace(batch, data={**batch.data, "video": to_uint8(output_BTHW3)})
        measures.features.add(scores.output_features, output)


@torch.no_grad()
def _reconstruct(model: CoordTok, batch: ClipBatch, decoding: Decoding) -> torch.Tensor:
    frames_B = batch.data["num_frames"]
    planes = model.encode(batch.data["video"], frames_B)
    output_BTHW3 = model.decode(planes, None, decoding.points_per_pass, grouping=decoding.grouping)
    real = [output_BTHW3[place, : frames_B[place]] for place in batch.numbers]
    if not all(video.isfinite().all() for video in real):
        raise CheckpointError(
            "the model's output is not finite: use --compute-dtype float32 or an export of an "
            "earlier step"
        )
    return output_BTHW3


def _score(
    number: int, output_THW3: torch.Tensor, original_THW3: torch.Tensor, measures: Measures
) -> ClipScore:
    """Pixels are measured as the model gives them, clipped but not rounded to 8 bits."""
    target_THW3 = from_uint8(original_THW3.to(output_THW3.device))
    distance = None
    if measures.perceptual is not None:
        with torch.no_grad():
            distance_T = measures.perceptual(output_THW3.clamp(-1, 1), target_THW3)
        distance = float(distance_T.double().mean())
    return ClipScore(
        number,
        psnr(output_THW3, target_THW3),
        ssim(output_THW3, target_THW3) if measures.ssim else None,
        distance,
        motion(original_THW3),
        psnr_of_mean_frame(target_THW3),
    )


def worst(clips: Iterable[ClipScore], count: int) -> list[ClipScore]:
    """The lowest PSNRs, lowest first; of equal ones the first clip of the list."""
    return nsmallest(count, clips, key=lambda clip: (clip.psnr, clip.number))


def best(clips: Iterable[ClipScore], count: int) -> list[ClipScore]:
    """The highest PSNRs, highest first; of equal ones the first clip of the list."""
    return nsmallest(count, clips, key=lambda clip: (-clip.psnr, clip.number))


def _keep_picture(
    scores: Scores, score: ClipScore, pair: tuple[torch.Tensor, torch.Tensor], count: int
) -> None:
    """Keep a look at a clip if it is among the worst or best of those that are kept."""
    looks = scores.pictures
    clips = [*(each.score for each in looks.values()), score]
    shown = {clip.number for rank in (worst, best) for clip in rank(clips, count)}
    if score.number in shown:
        looks[score.number] = _pictures(score, *pair)
    for number in looks.keys() - shown:
        del looks[number]


def _pictures(score: ClipScore, output_THW3: torch.Tensor, original_THW3: torch.Tensor) -> Pictures:
    shown = torch.linspace(0, len(original_THW3) - 1, SHOWN_FRAMES).round().long()
    output = to_uint8(output_THW3[shown.to(output_THW3.device)]).cpu().numpy()
    return Pictures(score, original_THW3[shown].numpy(), output)
