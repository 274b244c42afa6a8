"""How well a tokenizer reconstructs a dataset, from the command's options to the folder of results.

FOLDER/  report.json    settings, model, data, means (report.py)
         clips.csv      the list of clips, to score the same ones again
         per_clip.csv   each clip's scores
"""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from tqdm import tqdm

from coordtok import distributed
from coordtok.config.errors import ConfigError
from coordtok.data.files import check_new, whole_folder
from coordtok.data.index import ShardIndex
from coordtok.data.loader import OpenedShards, VideoWindows, open_shards
from coordtok.evaluation.clip_reader import ClipReader
from coordtok.evaluation.clips import Clip, draw_clips, one_per_sample, read_clips, to_csv
from coordtok.evaluation.metrics import check_ssim
from coordtok.evaluation.over_ranks import score_together
from coordtok.evaluation.reconstruction import Decoding
from coordtok.evaluation.report import (
    DEFINITIONS,
    REPORT,
    clip_rows,
    correlation,
    describe_decoding,
    describe_model,
    describe_shards,
    mean,
)
from coordtok.evaluation.scoring import Measures, Scores, score_clips
from coordtok.losses.perceptual import load_perceptual
from coordtok.models.tokenizer import CoordTok

CLIPS = "clips.csv"
PER_CLIP = "per_clip.csv"


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


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    model: Path
    shards: str
    output: Path
    sampling: Sampling = field(default_factory=Sampling)
    decoding: Decoding = field(default_factory=Decoding)
    device: str = "cpu"
    dtype: torch.dtype | None = None
    workers: int = 0
    ssim: bool = True
    perceptual: Literal["lpips", "hed"] | None = None
    perceptual_weights: str | None = None
    shown: int = 6
    progress: bool = False


@dataclass(frozen=True)
class Prepared:
    """Everything that could be wrong before the first clip is scored is checked by now."""

    model: CoordTok
    source: OpenedShards
    clips: list[Clip]
    reader: ClipReader
    measures: Measures


def evaluate_tokenizer(request: Request) -> dict[str, Any]:
    """Score a tokenizer over all ranks; rank 0 writes the new folder. Returns its report.

    Raises:
        UserError: on all ranks: data, model, networks or the folder cannot be used.
    """
    distributed.run_on_main(lambda: check_new(request.output))
    prepared = distributed.together(lambda: _prepare(request))
    scores = score_together(partial(_score, request, prepared), request.shown)
    return distributed.run_on_main(lambda: _write(request, prepared, scores))


def _prepare(request: Request) -> Prepared:
    model = CoordTok.from_pretrained(request.model, request.device, request.dtype)
    source = open_shards(request.shards)
    frames, height, width = model.config.video_size
    clips = request.sampling.choose(source.index, frames)
    reader = ClipReader(
        source,
        clips,
        VideoWindows(frames, height, width),
        batch=request.decoding.batch,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        workers=request.workers,
    )
    if request.ssim:
        check_ssim(height, width)
    perceptual = request.perceptual and load_perceptual(
        request.perceptual, request.perceptual_weights, request.device
    )
    measures = Measures(request.ssim, perceptual or None, shown=request.shown)
    return Prepared(model, source, clips, reader, measures)


def _score(request: Request, prepared: Prepared) -> Scores:
    shown = request.progress and distributed.is_main()
    with tqdm(total=prepared.reader.clips, unit="clip", disable=not shown) as bar:
        return score_clips(
            prepared.model, prepared.reader, request.decoding, prepared.measures, bar.update
        )


def _write(request: Request, prepared: Prepared, scores: Scores) -> dict[str, Any]:
    index = prepared.source.index
    clip_list = to_csv(prepared.clips, index)
    report = {
        "metrics": _metrics(scores, prepared.measures),
        "clips": {
            **request.sampling.describe(),
            "scored": len(scores.clips),
            "unreadable": len(scores.skipped),
            "list_sha256": hashlib.sha256(clip_list.encode()).hexdigest(),
        },
        "decoding": describe_decoding(prepared.model, request.decoding),
        "model": describe_model(request.model, prepared.model),
        "data": describe_shards(prepared.source),
        "definitions": DEFINITIONS,
    }
    with whole_folder(request.output) as folder:
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (folder / CLIPS).write_text(clip_list, encoding="utf-8")
        rows = list(clip_rows(prepared.clips, scores.clips, index))
        (folder / PER_CLIP).write_text(_as_csv(rows), encoding="utf-8")
    return report


def _metrics(scores: Scores, measures: Measures) -> dict[str, Any]:
    clips = scores.clips
    found: dict[str, Any] = {"psnr": mean([clip.psnr for clip in clips])}
    if measures.ssim:
        found["ssim"] = mean([clip.ssim for clip in clips if clip.ssim is not None])
    if measures.perceptual is not None:
        values = [clip.perceptual for clip in clips if clip.perceptual is not None]
        found["perceptual"] = {"name": measures.perceptual.name, "value": mean(values)}
    found["motion"] = mean([clip.motion for clip in clips])
    found["motion_correlation"] = correlation(clips)
    return found


def _as_csv(rows: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
