"""How well a tokenizer reconstructs a dataset: from the choice of clips to the report.

All ranks take part; what they find does not depend on how many they are.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from coordtok import distributed
from coordtok.data.clip_reader import ClipBatch, ClipReader
from coordtok.data.clips import Clip, ClipChoice, to_csv
from coordtok.data.shards import OpenedShards, open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.evaluation.clip_features import FeatureTaker, distances
from coordtok.evaluation.features import FeatureChoice
from coordtok.evaluation.linear_codec import LinearCodec
from coordtok.evaluation.metrics import check_ssim
from coordtok.evaluation.over_ranks import each_batch, merge_scores
from coordtok.evaluation.report import (
    by_motion,
    correlation,
    definitions,
    describe_clips,
    describe_decoding,
    describe_model,
    describe_shards,
    mean,
)
from coordtok.evaluation.results import write_results
from coordtok.evaluation.scoring import Measures, Scores, score_batch
from coordtok.inference.reconstruct import Decoding
from coordtok.losses.perceptual import check_size as check_perceptual_size
from coordtok.losses.perceptual import load_perceptual
from coordtok.models.tokenizer import CoordTok
from coordtok.progress import ProgressBar
from coordtok.storage.files import check_new


@dataclass(frozen=True)
class TokenizerRequest:
    """What the command line asks for."""

    model: Path
    shards: str
    output: Path
    clips: ClipChoice = field(default_factory=ClipChoice)
    decoding: Decoding = field(default_factory=Decoding)
    device: str = "cpu"
    dtype: torch.dtype | None = None
    workers: int = 0
    ssim: bool = True
    perceptual: Literal["lpips", "hed"] | None = None
    perceptual_weights: str | None = None
    features: FeatureChoice | None = None
    linear_codec: Path | None = None
    shown: int = 6
    progress: bool = False


@dataclass(frozen=True)
class Prepared:
    """Everything that could be wrong before the first clip is scored is checked by now."""

    model: CoordTok
    dataset: OpenedShards
    clips: list[Clip]
    reader: ClipReader
    measures: Measures


def evaluate_tokenizer(request: TokenizerRequest) -> dict[str, Any]:
    """Score a tokenizer over all ranks; rank 0 writes the new folder. Returns its report.

    Raises:
        UserError: on all ranks: data, model, networks or the folder cannot be used.
    """
    distributed.run_on_main(lambda: check_new(request.output))
    prepared = distributed.together(lambda: _prepare(request))
    scores = _score(request, prepared)
    return distributed.run_on_main(lambda: _write(request, prepared, scores))


def _prepare(request: TokenizerRequest) -> Prepared:
    model = CoordTok.from_pretrained(request.model, request.device, request.dtype)
    frames, height, width = size = model.config.video_size
    dataset = open_shards(request.shards, size=size)
    clips = request.clips.choose(dataset.index, frames)
    reader = ClipReader(
        dataset,
        clips,
        VideoWindows(frames, height, width),
        batch=request.decoding.batch,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        workers=request.workers,
    )
    if request.ssim:
        check_ssim(height, width)
    perceptual = features = None
    if request.perceptual is not None:
        check_perceptual_size(height, width)
        perceptual = load_perceptual(request.perceptual, request.perceptual_weights, request.device)
    if request.features is not None:
        features = FeatureTaker.load(request.features, model.config.video_size, request.device)
        features.check_clips([clip.frames for clip in clips], "clips")
    linear_codec = None
    if request.linear_codec is not None:
        numbers = model.config.latent.numbers
        linear_codec = LinearCodec.load(request.linear_codec, size, numbers)
    measures = Measures(request.ssim, perceptual, features, linear_codec, request.shown)
    return Prepared(model, dataset, clips, reader, measures)


def _score(request: TokenizerRequest, prepared: Prepared) -> Scores:
    """Of all ranks' clips."""
    own = Scores()

    def score(batch: ClipBatch) -> None:
        score_batch(own, prepared.model, batch, request.decoding, prepared.measures)

    shown = request.progress and distributed.is_main()
    with ProgressBar(total=len(prepared.clips), unit="clip", disable=not shown) as bar:
        each_batch(prepared.reader, score, bar)
    return merge_scores(own, request.shown)


def _write(request: TokenizerRequest, prepared: Prepared, scores: Scores) -> dict[str, Any]:
    index = prepared.dataset.index
    metrics = _metrics(scores, prepared.measures)
    report = {
        "metrics": metrics,
        "clips": describe_clips(
            request.clips, len(scores.clips), len(scores.skipped), to_csv(prepared.clips, index)
        ),
        "decoding": describe_decoding(prepared.model, request.decoding),
        "model": describe_model(request.model, prepared.model),
        "data": describe_shards(prepared.dataset),
        "definitions": definitions(metrics),
    }
    if prepared.measures.features is not None:
        report["features"] = prepared.measures.features.network.settings
    write_results(request.output, report, scores, prepared.clips, index, request.shown)
    return report


def _metrics(scores: Scores, measures: Measures) -> dict[str, Any]:
    clips = scores.clips
    found: dict[str, Any] = {
        "psnr": mean([clip.psnr for clip in clips]),
        "psnr_mean_frame": mean([clip.psnr_mean_frame for clip in clips]),
    }
    if measures.linear_codec is not None:
        values = [each.psnr_linear_codec for each in clips if each.psnr_linear_codec is not None]
        found["psnr_linear_codec"] = mean(values)
    found["by_motion"] = by_motion(clips)
    if measures.ssim:
        found["ssim"] = mean([clip.ssim for clip in clips if clip.ssim is not None])
    if measures.perceptual is not None:
        values = [clip.perceptual for clip in clips if clip.perceptual is not None]
        found["perceptual"] = {"name": measures.perceptual.name, "value": mean(values)}
    if measures.features is not None:
        originals, outputs = scores.original_features, scores.output_features
        found["rfvd"] = distances(measures.features.network, originals, outputs)
    found["motion"] = mean([clip.motion for clip in clips])
    found["motion_correlation"] = correlation(clips)
    return found
