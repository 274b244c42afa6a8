"""What can be asked of `build_shards`, as one frozen record and its command line."""

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

from coordtok.cli import MOST_COUNTED, Parser, up_to
from coordtok.config.models import MOST_ALONG_AXIS, MOST_PIXELS
from coordtok.config.ranges import Range, ranges
from coordtok.data.index import MOST_LANES, SHARD_NAME
from coordtok.data.partition import CLIPS_PER_SEGMENT, DEALING_SEED, MIN_FRAMES, SHARD_PREFIX
from coordtok.errors import ConfigError
from coordtok.video.pixel_formats import PIXEL_FORMATS
from coordtok.video.source import RESAMPLERS

DATASETS = ("folder", "ucf101", "kinetics", "list")
MEGABYTE = 1_000_000
_LONGEST_PREFIX = 100

_EPILOG = """\
examples:
  class folders of videos, 128 x 128, clips of 128 frames, a tenth held out:
    python -m data_prep.build_shards --input videos/ --output shards/mine --val-fraction 0.1
  UCF-101, official split 1:
    python -m data_prep.build_shards --dataset ucf101 --input UCF-101/ --splits ucfTrainTestlist/ \\
        --split train --output shards/ucf101/train
  one film, split by hand: the first 80 % for training, the rest held out
    python -m data_prep.build_shards --input film/ --frames 0:9360 --output shards/film/train
    python -m data_prep.build_shards --input film/ --frames 9360:11700 --output shards/film/val

Interrupted? Run the same command again: finished videos and shards are kept.
Files that are not used are named in OUTPUT/failures.jsonl with the reason."""


@dataclass(frozen=True)
class BuildOptions:
    """Everything that decides which bytes are built, and nothing else."""

    input: str
    output: str
    dataset: str = "folder"
    splits: str | None = None
    fold: Annotated[int, Range(1, 3)] = 1
    csv: str | None = None
    split: str | None = None
    frames: tuple[int, int | None] = (0, None)
    min_frames: Annotated[int, Range(1, 1 << 31)] = MIN_FRAMES
    keep_damaged: bool = False
    val_fraction: Annotated[float | None, Range(above=0, below=1)] = None
    height: Annotated[int, Range(1, MOST_PIXELS)] = 128
    width: Annotated[int, Range(1, MOST_PIXELS)] = 128
    resample: str = "bicubic"
    fps: Fraction | None = None
    clip_frames: Annotated[int, Range(1, MOST_ALONG_AXIS)] = 128
    clips_per_segment: Annotated[int, Range(1, 10_000)] = CLIPS_PER_SEGMENT
    codec: str = "h264"
    crf: Annotated[float, Range(0, 51)] = 18.0
    gop: Annotated[int, Range(1, 100_000)] = 16
    pixel_format: str = "yuv444p"
    lanes: Annotated[int | None, Range(1, MOST_LANES)] = None
    shard_size: Annotated[int, Range(1, 1_000_000)] = 256
    samples_per_shard: Annotated[int | None, Range(1, 1_000_000)] = None
    prefix: str = SHARD_PREFIX
    seed: int = DEALING_SEED

    def __post_init__(self) -> None:
        for name, allowed in ranges(BuildOptions).items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ConfigError(f"{_flag(name)} {value}: it must be {allowed}")
        if self.val_fraction is not None and self.dataset == "ucf101":
            raise ConfigError(
                f"--val-fraction {self.val_fraction}: UCF-101 has a held-out part of its own, "
                "--split test; videos of one group are alike and must stay on one side"
            )
        odd = self.height % 2 or self.width % 2
        if self.codec == "h264" and self.pixel_format == "yuv420p" and odd:
            raise ConfigError(
                f"{self.height} x {self.width} is odd, yuv420p needs even sizes: "
                "use --pixel-format yuv444p"
            )
        if not SHARD_NAME.fullmatch(f"{self.prefix}.tar") or len(self.prefix) > _LONGEST_PREFIX:
            raise ConfigError(
                f"--prefix {self.prefix[: _LONGEST_PREFIX + 1]!r}: letters, digits, '_' and '-' "
                f"only, at most {_LONGEST_PREFIX}"
            )
        if self.dataset == "ucf101" and (self.splits is None or self.split is None):
            raise ConfigError("--dataset ucf101 needs --splits DIR and --split train or test")
        if self.dataset == "kinetics" and self.csv is None:
            raise ConfigError("--dataset kinetics needs --csv FILE")

    def as_dict(self) -> dict[str, Any]:
        """The settings in JSON's types, to compare runs by."""
        values = asdict(self)
        values["fps"] = None if self.fps is None else str(self.fps)
        values["frames"] = list(self.frames)
        values["keep_damaged"] = self.keep_damaged or None  # not there in folders of before
        return values

    @property
    def codec_spec(self) -> dict[str, Any]:
        """The codec as the shard index records it."""
        if self.codec == "raw":
            return {"name": "raw"}
        settings = {"crf": self.crf, "gop": self.gop, "pixel_format": self.pixel_format}
        return {"name": self.codec, **settings}


@dataclass(frozen=True)
class RunOptions:
    """How to build, which changes no byte of what is built."""

    workers: int
    distributor: str
    ray_address: str | None


def parse(arguments: Sequence[str] | None = None) -> tuple[BuildOptions, RunOptions]:
    """Read the command line."""
    values = vars(_parser().parse_args(arguments))
    run = RunOptions(values.pop("workers"), values.pop("distributor"), values.pop("ray_address"))
    if run.workers < 1:
        raise ConfigError(f"--workers {run.workers}: it must be at least 1")
    for name in ("input", "output", "splits", "csv"):
        values[name] = None if values[name] is None else str(Path(values[name]).absolute())
    return BuildOptions(**values), run


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _rate(text: str) -> Fraction:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is no rate like 24 or 30000/1001") from None
    if not 0 < rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to 1000")
    return rate


def _frame_range(text: str) -> tuple[int, int | None]:
    if not (match := re.fullmatch(r"(\d{0,12}):(\d{0,12})", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no range like 0:9360, 9360: or :100")
    start, end = int(match[1] or 0), int(match[2]) if match[2] else None
    if end is not None and end <= start:
        raise argparse.ArgumentTypeError(f"{text} holds no frame")
    return start, end


def _parser() -> Parser:
    parser = Parser(
        "Turn videos into WebDataset shards at training resolution.",
        prog="python -m data_prep.build_shards",
        epilog=_EPILOG,
    )
    _add_source_options(parser)
    _add_picture_options(parser)
    _add_shard_options(parser)
    parser.set_defaults(**{each.name: each.default for each in fields(BuildOptions)[2:]})
    run = parser.add_argument_group("how to run (changes no byte of the output)")
    run.add_argument(
        "--workers",
        type=up_to(MOST_COUNTED),
        default=len(os.sched_getaffinity(0)),
        metavar="N",
        help="processes, or Ray tasks at a time (default: one per core it may use, %(default)s)",
    )
    run.add_argument(
        "--distributor",
        choices=("local", "ray"),
        default="local",
        help="processes on this machine, or a Ray cluster that shares the folders "
        "(default %(default)s)",
    )
    run.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="of a running Ray cluster (default: RAY_ADDRESS, else a local one)",
    )
    return parser


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    what = parser.add_argument_group("what to read")
    what.add_argument(
        "--input",
        required=True,
        metavar="DIR",
        help="folder of videos; for --dataset list the text file of paths",
    )
    what.add_argument("--output", required=True, metavar="DIR", help="folder of the shards")
    what.add_argument(
        "--dataset",
        choices=DATASETS,
        help="folder: videos, one folder a class, at any depth (default); ucf101: "
        "with its split files; kinetics: files named by a CSV; list: a text file "
        "with a path a line, relative to that file",
    )
    what.add_argument(
        "--splits", metavar="DIR", help="ucf101: folder of classInd.txt and trainlist01.txt ..."
    )
    what.add_argument(
        "--fold",
        type=int,
        choices=(1, 2, 3),
        default=1,
        help="ucf101: which of the official splits (default %(default)s)",
    )
    what.add_argument(
        "--csv",
        metavar="FILE",
        help="kinetics: label,youtube_id,time_start,"
        "time_end,split; files are ID.* or ID_START_END.*, read whole",
    )
    what.add_argument(
        "--split",
        help="ucf101: train or test; kinetics: only rows of this split "
        "(default: all); else recorded as given",
    )
    what.add_argument(
        "--frames",
        type=_frame_range,
        metavar="START:END",
        help="only this part of each video, in frames (after --fps), END excluded",
    )
    what.add_argument(
        "--val-fraction",
        type=float,
        metavar="F",
        help="hold out about this share of the frames: OUTPUT/train and OUTPUT/val become folders "
        "of shards. By video; by time, the end of each, where a video would be more than that",
    )
    what.add_argument(
        "--min-frames",
        type=int,
        metavar="N",
        help="leave out videos with fewer frames (default %(default)s)",
    )
    what.add_argument(
        "--keep-damaged",
        action="store_true",
        help="take the frames before the damage of a video that is cut off or damaged (default: "
        "leave it out)",
    )


def _add_picture_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_argument_group("how to store it")
    how.add_argument(
        "--height",
        type=int,
        metavar="N",
        help="the picture is scaled to cover HEIGHT x WIDTH, the centre kept (default %(default)s)",
    )
    how.add_argument("--width", type=int, metavar="N", help="(default %(default)s)")
    how.add_argument(
        "--resample",
        choices=sorted(RESAMPLERS),
        default="bicubic",
        help="filter for scaling (default %(default)s)",
    )
    how.add_argument(
        "--fps",
        type=_rate,
        metavar="RATE",
        help="steady frame rate, as 24 or 30000/1001 (default: every frame as it is)",
    )
    how.add_argument(
        "--clip-frames",
        type=int,
        metavar="N",
        help="frames of a training clip (default %(default)s)",
    )
    how.add_argument(
        "--clips-per-segment",
        type=int,
        metavar="N",
        help="clips in one stored segment, within which training draws windows "
        "(default %(default)s)",
    )
    how.add_argument(
        "--codec",
        choices=("h264", "raw"),
        default="h264",
        help="raw: .npy, about 40 times larger, read in under 1 ms (default %(default)s)",
    )
    how.add_argument(
        "--crf",
        type=float,
        metavar="Q",
        help="h264 quality, lower is better and larger; the summary reports the "
        "PSNR it gave (default %(default)s, about 40 dB)",
    )
    how.add_argument(
        "--gop",
        type=int,
        metavar="N",
        help="h264 frames between key frames (default %(default)s)",
    )
    how.add_argument(
        "--pixel-format",
        choices=PIXEL_FORMATS,
        help="h264: yuv420p is a fifth smaller and blurs colour, which alone can "
        "limit RGB PSNR to 37 dB (default %(default)s)",
    )


def _add_shard_options(parser: argparse.ArgumentParser) -> None:
    shards = parser.add_argument_group("shards")
    shards.add_argument(
        "--lanes",
        type=int,
        metavar="L",
        help="streams the data is dealt to; the number of ranks must divide it; lowered to a "
        "divisor of it if there are fewer samples (default: the largest divisor of 96 whose lanes "
        "are even within 10 %%)",
    )
    shards.add_argument(
        "--shard-size",
        type=int,
        metavar="MB",
        help="about this many megabytes a shard (default %(default)s)",
    )
    shards.add_argument(
        "--samples-per-shard",
        type=int,
        metavar="N",
        help="instead of --shard-size: at most about N samples a shard",
    )
    shards.add_argument(
        "--prefix",
        metavar="NAME",
        help="shards are NAME-000000.tar ... (default %(default)s)",
    )
    shards.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="of the order in which segments are dealt (default %(default)s)",
    )
