"""What an evaluation found, as JSON for machines and as a table for people.

Nothing in it depends on the machine or on the number of ranks, so reports can be compared as files.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from coordtok.data.clips import Clip, ClipChoice, names
from coordtok.data.index import ShardIndex
from coordtok.data.shards import OpenedShards
from coordtok.evaluation.scoring import ClipScore
from coordtok.evaluation.side_by_side import channels_of
from coordtok.inference.reconstruct import Decoding
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import read_card
from coordtok.pretrained.fingerprint import fingerprint

_HASH = 64
MEASURES = ("psnr", "psnr_mean_frame", "psnr_linear_codec", "ssim", "perceptual", "motion")
_DEFINITIONS = {
    "psnr": "dB, of each frame, averaged over a clip's frames, then over clips; padding excluded; "
    "predictions clipped, not rounded to 8 bits",
    "psnr_mean_frame": "PSNR of showing each clip's mean frame",
    "psnr_linear_codec": "PSNR of principal components of tubelets, as many numbers as the latent",
    "by_motion": "PSNR by quarter of the clips, those that move least first",
    "ssim": "torchmetrics, Gaussian window of 11 pixels, borders mirrored and counted, averaged as "
    "PSNR is",
    "perceptual": "distance of the named network, averaged as PSNR is",
    "motion": "mean absolute difference of neighbouring frames of the source, in 8-bit levels",
    "motion_correlation": "Pearson's r of PSNR and motion over the clips",
    "rfvd": "Frechet distance of the features of sources and reconstructions, both as 8-bit RGB",
    "fvd": "Frechet distance of the features of real and generated clips, both as 8-bit RGB",
}


def definitions(metrics: Mapping[str, Any]) -> dict[str, str]:
    """What the figures of a report mean."""
    return {name: meaning for name, meaning in _DEFINITIONS.items() if name in metrics}


def describe_model(folder: Path, model: CoordTok) -> dict[str, Any]:
    """Which tokenizer it is, and what it makes of a clip."""
    card = read_card(folder)
    config = model.config
    return {
        "path": str(folder),
        "fingerprint": fingerprint(folder),
        "weights": card.origin.weights,
        "step": card.origin.step,
        "dtype": str(model.decoder.position.dtype).removeprefix("torch."),
        "frames": config.frames,
        "height": config.height,
        "width": config.width,
        "tokens": config.latent.positions,
        "channels": channels_of(config.latent),
    }


def describe_clips(
    choice: ClipChoice, scored: int, unreadable: int, clip_list: str
) -> dict[str, Any]:
    """Which clips; two reports are of the same ones if the list's digest is the same."""
    return {
        **choice.describe(),
        "scored": scored,
        "unreadable": unreadable,
        "list_sha256": hashlib.sha256(clip_list.encode()).hexdigest(),
    }


def describe_shards(dataset: OpenedShards) -> dict[str, Any]:
    return {
        "path": dataset.location,
        "fingerprint": dataset.index.fingerprint,
        "samples": dataset.index.samples,
        "codec": dict(dataset.index.codec),
    }


def describe_decoding(model: CoordTok, decoding: Decoding) -> dict[str, Any]:
    """What the pixels depend on beside the model; the batch moves them only in the last bits."""
    points = decoding.points_per_pass or model.points_per_pass
    return {"points_per_pass": points, "grouping": decoding.grouping, "batch": decoding.batch}


def mean(values: Sequence[float]) -> float:
    """Exact whatever the order, so that ranks do not show."""
    return math.fsum(values) / len(values)


def correlation(clips: Sequence[ClipScore]) -> float | None:
    """Pearson's r of PSNR and motion; None of two clips, through which any line goes, and where
    either is the same for all clips."""
    pairs = np.array([(clip.motion, clip.psnr) for clip in clips], np.float64)
    if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return None
    return float(np.corrcoef(pairs.T)[0, 1])


def by_motion(clips: Sequence[ClipScore]) -> list[dict[str, Any]]:
    """Mean PSNRs of each quarter of the clips by motion, from those that move least; fewer parts of
    fewer than four clips."""
    ordered = sorted(clips, key=lambda clip: (clip.motion, clip.number))
    parts = min(4, len(ordered))
    bounds = [len(ordered) * part // parts for part in range(parts + 1)]
    return [_part(ordered[low:high]) for low, high in pairwise(bounds)]


def _part(clips: Sequence[ClipScore]) -> dict[str, Any]:
    names = ("psnr", "psnr_mean_frame", "psnr_linear_codec")
    means = {name: [getattr(clip, name) for clip in clips] for name in names}
    return {
        "clips": len(clips),
        "motion": mean([clip.motion for clip in clips]),
        **{name: mean(values) for name, values in means.items() if None not in values},
    }


def clip_rows(
    clips: Sequence[Clip], scores: Sequence[ClipScore], index: ShardIndex
) -> Iterator[dict[str, object]]:
    """A row for each scored clip, in the order of the list."""
    for score in scores:
        clip = clips[score.number]
        shard, key = names(clip, index)
        place = {"shard": shard, "key": key, "start": clip.start, "frames": clip.frames}
        yield {**place, **measured(score)}


def measured(score: ClipScore) -> dict[str, float]:
    """What was measured of a clip, by name."""
    values = score._asdict()
    return {name: values[name] for name in MEASURES if values[name] is not None}


def table(report: Mapping[str, Any]) -> str:
    """The figures of a report and what they depend on, in Markdown that also reads as it is."""
    rows = [("metric", "value", "of"), *_figures(report)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([*lines, "", *_settings(report)]) + "\n"


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    metrics = report["metrics"]
    clips = f"{report['clips']['scored']} clips"
    if "psnr" in metrics:
        yield "PSNR", f"{metrics['psnr']:.2f} dB", clips
    if "psnr_mean_frame" in metrics:
        yield "PSNR of the mean frame", f"{metrics['psnr_mean_frame']:.2f} dB", clips
    if "psnr_linear_codec" in metrics:
        yield "PSNR of a linear codec", f"{metrics['psnr_linear_codec']:.2f} dB", clips
    for part in metrics.get("by_motion", ()):
        beside = f"mean frame {part['psnr_mean_frame']:.2f}"
        if "psnr_linear_codec" in part:
            beside += f", linear codec {part['psnr_linear_codec']:.2f}"
        label = f"PSNR at motion {part['motion']:.1f}"
        yield label, f"{part['psnr']:.2f} dB ({beside})", f"{part['clips']} clips"
    if "ssim" in metrics:
        yield "SSIM", f"{metrics['ssim']:.4f}", clips
    if "perceptual" in metrics:
        yield metrics["perceptual"]["name"], f"{metrics['perceptual']['value']:.4f}", clips
    for name in ("rfvd", "fvd"):
        for each in metrics.get(name, ()):
            label = f"{'rFVD' if name == 'rfvd' else 'FVD'} ({each['features']})"
            yield f"{label}, {each['frames']} frames", f"{each['value']:.4g}", _compared(each)
    if "motion" in metrics:
        yield "motion", f"{metrics['motion']:.2f} levels", clips
        r = metrics["motion_correlation"]
        yield "PSNR against motion", "none" if r is None else f"r = {r:.2f}", clips


def _compared(distance: Mapping[str, Any]) -> str:
    first, second = distance["clips"]
    clips = f"{first} clips" if first == second else f"{first} and {second} clips"
    if distance["reliable"]:
        return clips
    return f"{clips}: too few to be relied on, there are {distance['dimension']} features"


def _settings(report: Mapping[str, Any]) -> Iterator[str]:
    for name in ("model", "generated", "data", "clips", "decoding"):
        if name in report:
            shown = {key: value for key, value in report[name].items() if _is_short(value)}
            yield f"{name}: " + ", ".join(f"{key} {value}" for key, value in shown.items())


def _is_short(value: object) -> bool:
    return value is not None and len(str(value)) < _HASH and not isinstance(value, dict)
