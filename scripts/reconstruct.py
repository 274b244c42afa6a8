#!/usr/bin/env python
"""Encode a video with a tokenizer, decode it again, and show both side by side:

    python scripts/reconstruct.py --model exports/mine --input film.mp4 --output reconstructed/film
    python scripts/reconstruct.py --model exports/mine --input film.mp4 \\
        --frames 100:140:5 --fit tile --output reconstructed/few
    python scripts/reconstruct.py --model exports/mine --input film.mp4 --rate 2 \\
        --output reconstructed/double

The output folder gets side_by_side.mp4 (source left), reconstruction.mp4 and report.json with PSNR,
tokens and bits per pixel. Any length and size that ffmpeg reads: the video goes through in windows
of the model's frames, the last one padded, and memory does not grow with the length.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from coordtok import cli

if TYPE_CHECKING:
    from coordtok.evaluation.side_by_side import Report


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    cli.add_model(parser)
    parser.add_argument("--input", metavar="VIDEO", required=True, help="any video file")
    cli.add_output(parser, "folder to make; must be new")
    parser.add_argument(
        "--fit",
        choices=("crop", "tile"),
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
    cli.add_decoding(parser, "tiles")
    cli.add_compute(parser)
    return parser.parse_args()


def summary(report: "Report", folder: Path) -> str:
    more = f" and {report.in_between} in between" if report.in_between else ""
    return (
        f"{folder}: {report.frames} frames{more} of {report.height} x {report.width}, "
        f"PSNR {report.psnr:.2f} dB; {report.tokens} tokens in {report.windows} windows, "
        f"{report.bits_per_pixel:.4f} bits per pixel"
    )


@cli.exit_on_user_error
def main() -> None:
    args = parse_args()
    from coordtok import distributed
    from coordtok.evaluation.side_by_side import write_reconstruction
    from coordtok.inference.frame_range import FrameRange
    from coordtok.inference.reconstruct import Decoding
    from coordtok.models.tokenizer import CoordTok
    from coordtok.pretrained.write import DTYPES

    frames = None if args.frames is None else FrameRange.parse(args.frames)
    if args.rate is not None:
        frames = (frames or FrameRange()).at_rate(args.rate)
    device = args.device or distributed.device()
    report = write_reconstruction(
        CoordTok.from_pretrained(args.model, device, DTYPES.get(args.compute_dtype)),
        args.input,
        args.output,
        fit=args.fit,
        frames=frames,
        decoding=Decoding(args.points_per_pass, args.grouping, args.batch),
        progress=True,
    )
    print(summary(report, args.output))


if __name__ == "__main__":
    sys.exit(main())
