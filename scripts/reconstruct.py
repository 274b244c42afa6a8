#!/usr/bin/env python
"""Encode a video with a tokenizer, decode it again, and show both side by side:

    python scripts/reconstruct.py --model models/quickstart --input film.mp4 --output out/film
    python scripts/reconstruct.py --model models/quickstart --input film.mp4 --output out/few \\
        --frames 100:140:5 --fit tile
    python scripts/reconstruct.py --model models/quickstart --input film.mp4 --output out/fluid \\
        --rate 2

The output folder gets side_by_side.mp4 (source left), reconstruction.mp4 and report.json with PSNR,
tokens and bits per pixel. Any length and size that ffmpeg reads: the video goes through in windows
of the model's frames, the last one padded, and memory does not grow with the length.
"""

import argparse
import sys
from pathlib import Path
from typing import get_args

from coordtok import distributed
from coordtok.cli import add_compute, add_decoding, decoding_of, dtype_of
from coordtok.errors import exit_on_user_error
from coordtok.evaluation.side_by_side import Report, write_reconstruction
from coordtok.inference.frame_range import FrameRange
from coordtok.inference.reconstruction import Fit
from coordtok.models.tokenizer import CoordTok


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", metavar="DIR", required=True, help="an export, as scripts/export.py makes it"
    )
    parser.add_argument("--input", metavar="VIDEO", required=True, help="any video file")
    parser.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="folder to make; must be new"
    )
    parser.add_argument(
        "--fit",
        choices=get_args(Fit),
        default="crop",
        help="crop: scale the short side to the model's size and keep the centre; tile: keep the "
        "video's size and cover it with tiles, which takes memory for a few windows of full-size "
        "frames (default: %(default)s)",
    )
    parser.add_argument(
        "--frames",
        metavar="START:END[:STEP]",
        help="only these frames, counted from 0 without END, or one frame's number; only windows "
        "that hold one are encoded, and only these decoded (default: all)",
    )
    parser.add_argument(
        "--rate",
        metavar="FACTOR",
        help="so many times the frame rate, such as 2 or 2.5 (24 to 60 frames a second): the new "
        "frames are decoded in between, which training never saw (docs/in_between_frames.md), and "
        "the video plays as long as before; beside them the source stands still",
    )
    add_decoding(parser, "tiles")
    add_compute(parser)
    return parser.parse_args()


def summary(report: Report, folder: Path) -> str:
    more = f" and {report.in_between} in between" if report.in_between else ""
    return (
        f"{folder}: {report.frames} frames{more} of {report.height} x {report.width}, "
        f"PSNR {report.psnr:.2f} dB; {report.tokens} tokens in {report.windows} windows, "
        f"{report.bits_per_pixel:.4f} bits per pixel"
    )


@exit_on_user_error
def main() -> None:
    args = parse_args()
    frames = None if args.frames is None else FrameRange.parse(args.frames)
    if args.rate is not None:
        frames = (frames or FrameRange()).at_rate(args.rate)
    report = write_reconstruction(
        CoordTok.from_pretrained(args.model, args.device or distributed.device(), dtype_of(args)),
        args.input,
        args.output,
        fit=args.fit,
        frames=frames,
        decoding=decoding_of(args),
        progress=True,
    )
    print(summary(report, args.output))


if __name__ == "__main__":
    sys.exit(main())
