#!/usr/bin/env python
"""Decode latent shards, as scripts/encode.py makes them, into mp4 files, one for each sample:

    python scripts/decode.py --model models/ucf --latents latents/train --output out/videos --num 8
    deepspeed scripts/decode.py --model models/ucf --latents latents/val --output out/val \\
        --frames 0:64:2

On any number of ranks (deepspeed, torchrun, or plain python for one). Killed at any moment, the
same command goes on where it stood. Files are named after the samples and play at the speed of
their source; decode.json says how they were made.
"""

import argparse
from pathlib import Path

from coordtok import distributed
from coordtok.cli import add_compute, add_decoding, decoding_of, dtype_of
from coordtok.data.shards import open_shards
from coordtok.errors import exit_on_user_error
from coordtok.inference.decode_shards import DecodeRequest, decode
from coordtok.inference.frame_range import FrameRange
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import TokenizerId
from coordtok.pretrained.fingerprint import fingerprint


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", metavar="DIR", required=True, help="the export that encoded the latents"
    )
    parser.add_argument(
        "--latents",
        metavar="DIR",
        required=True,
        help="latent shards: a folder, an http(s) URL, or a pipe: command",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="folder to make, or to go on with"
    )
    parser.add_argument(
        "-n",
        "--num",
        type=int,
        metavar="N",
        help="only the first N samples (default: all); launchers take --num for theirs: write -n "
        "there",
    )
    parser.add_argument(
        "--frames",
        metavar="START:END[:STEP]",
        default=":",
        help="only these frames of each clip, counted from 0 without END; only the passes that "
        "hold one are decoded (default: all)",
    )
    add_decoding(parser, "samples")
    add_compute(parser)
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # from the launcher
    return parser.parse_args()


@exit_on_user_error
def main() -> None:
    args = parse_args()
    request = DecodeRequest(args.num, FrameRange.parse(args.frames), decoding_of(args))
    distributed.setup()
    source = distributed.together(lambda: open_shards(args.latents))
    model = distributed.together(
        lambda: CoordTok.from_pretrained(
            args.model, args.device or distributed.device(), dtype_of(args)
        )
    )
    tokenizer = distributed.run_on_main(lambda: TokenizerId(args.model, fingerprint(args.model)))
    files = decode(model, tokenizer, source, args.output, request, progress=distributed.is_main())
    if distributed.is_main():
        print(f"{args.output}: {files} videos")


if __name__ == "__main__":
    distributed.leave(main())
