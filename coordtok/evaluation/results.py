"""The folder that an evaluation of a tokenizer leaves behind.

FOLDER/  report.json    settings, model, data, means (report.py)
         report.md      the same in short, as a table
         clips.csv      the list of clips, to score the same ones again (clips.py)
         per_clip.csv   each clip's scores, in the order of the list
         worst.png      the clips of lowest PSNR, originals above reconstructions
         best.png       those of highest PSNR
         motion.png     PSNR against motion, a point for each clip; not without matplotlib
"""

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coordtok.data.clips import Clip, names, to_csv
from coordtok.data.index import ShardIndex
from coordtok.errors import ConfigError
from coordtok.evaluation.contact_sheet import Entry, contact_sheet
from coordtok.evaluation.plots import Axis, write_scatter
from coordtok.evaluation.report import clip_rows, correlation, table
from coordtok.evaluation.scoring import ClipScore, Scores, best, worst
from coordtok.storage.files import whole_folder

logger = logging.getLogger(__name__)

REPORT, TABLE = "report.json", "report.md"
CLIPS, PER_CLIP = "clips.csv", "per_clip.csv"
WORST, BEST, MOTION = "worst.png", "best.png", "motion.png"


def write_results(
    folder: Path,
    report: Mapping[str, Any],
    scores: Scores,
    clips: Sequence[Clip],
    index: ShardIndex,
    shown: int,
) -> None:
    """Fill the new `folder`, which appears when complete; `shown` clips in each contact sheet."""
    with whole_folder(folder) as part:
        write_report(part, report)
        (part / CLIPS).write_text(to_csv(clips, index), encoding="utf-8")
        rows = list(clip_rows(clips, scores.clips, index))
        (part / PER_CLIP).write_text(_as_csv(rows), encoding="utf-8")
        distance = report["metrics"].get("perceptual", {}).get("name")
        for name, word, chosen in (
            (WORST, "lowest", worst(scores.clips, shown)),
            (BEST, "highest", best(scores.clips, shown)),
        ):
            title = f"The {len(chosen)} of {len(scores.clips)} clips with the {word} PSNR"
            entries = [_entry(scores, score, clips, index, distance) for score in chosen]
            contact_sheet(title, entries).save(part / name)
        try:
            _write_motion_plot(part / MOTION, scores.clips)
        except ConfigError as error:
            logger.warning("%s is left out: %s", MOTION, error)


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    (folder / TABLE).write_text(table(report), encoding="utf-8")


def _entry(
    scores: Scores,
    score: ClipScore,
    clips: Sequence[Clip],
    index: ShardIndex,
    perceptual: str | None,
) -> Entry:
    clip = clips[score.number]
    figures = [f"PSNR {score.psnr:.2f} dB"]
    figures += [] if score.ssim is None else [f"SSIM {score.ssim:.3f}"]
    figures += [] if score.perceptual is None else [f"{perceptual} {score.perceptual:.3f}"]
    figures += [f"motion {score.motion:.1f}"]
    place = f"{names(clip, index)[1]}, frames {clip.start} to {clip.start + clip.frames - 1}"
    pictures = scores.pictures[score.number]
    return Entry(f"{', '.join(figures)} | {place}", pictures.original, pictures.output)


def _write_motion_plot(path: Path, clips: Sequence[ClipScore]) -> None:
    r = correlation(clips)
    title = f"PSNR against motion: {len(clips)} clips" + ("" if r is None else f", r = {r:.2f}")
    across = Axis(
        "motion: mean absolute difference of neighbouring frames, 8-bit levels",
        [clip.motion for clip in clips],
    )
    write_scatter(path, title, across, Axis("PSNR, dB", [clip.psnr for clip in clips]))


def _as_csv(rows: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
