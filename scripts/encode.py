#!/usr/bin/env python
"""Encode a dataset of video shards into latent shards, to train a diffusion transformer on:

    python scripts/encode.py --model models/ucf --shards shards/ucf101/train --output latents/train
    deepspeed scripts/encode.py --model models/ucf --shards shards/ucf101/train \\
        --output latents/train --windows 8 --batch 16

On any number of ranks (deepspeed, torchrun, or plain python for one). Killed at any moment, the
same command goes on where it stood. The output folder gets a tar of latents for each tar of video,
skipped.jsonl with the videos that could not be read, and an index.json with the tokenizer's
fingerprint and the mean and std of every channel. scripts/decode.py turns it back into video.
"""

import argparse
import time
from pathlib import Path

from coordtok import distributed
from coordtok.data.shards import open_shards
from coordtok.errors import exit_on_user_error
from coordtok.inference.encode_shards import Encoding, Summary, encode
from coordtok.inference.window_choice import WindowChoice
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import TokenizerId
from coordtok.pretrained.fingerprint import fingerprint
from coordtok.pretrained.write import DTYPES


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", metavar="DIR", required=True, help="an export, as scripts/export.py makes it"
    )
    parser.add_argument(
        "--shards",
        metavar="DIR",
        required=True,
        help="video shards at the model's size: a folder, an http(s) URL, or a pipe: command",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="folder to make, or to go on with"
    )
    parser.add_argument(
        "--windows",
        metavar="all|N",
        default="all",
        help="all: consecutive windows of each video, the last one moved back to end with it; N: "
        "that many at random places (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the random places (default: 0)"
    )
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default="bfloat16",
        help="of the stored planes; bfloat16 takes half the room (default: %(default)s)",
    )
    parser.add_argument(
        "--compute", choices=DTYPES, help="of the weights (default: as the model stores them)"
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=4,
        metavar="B",
        help="clips of a forward pass; the last bit of a plane depends on it, and not on the "
        "number of ranks (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(8, distributed.cores_per_rank()),
        metavar="N",
        help="processes of each rank that decode video ahead (default here: %(default)s)",
    )
    parser.add_argument("--device", help="to compute on (default: each rank's GPU, or the CPU)")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # from the launcher
    return parser.parse_args()


def told(summary: Summary, output: Path, encoded: int, seconds: float) -> str:
    rate = f"{encoded / seconds:.1f} clips/s" if encoded else "encoded before"
    skipped = f"; {summary.skipped} videos skipped, see skipped.jsonl" if summary.skipped else ""
    return (
        f"{output}: {summary.clips} latents in {summary.shards} shards, {summary.lanes} lanes, "
        f"{summary.bytes / 1e6:.1f} MB; {rate}{skipped}"
    )


@exit_on_user_error
def main() -> None:
    args = parse_args()
    how = Encoding(
        WindowChoice.parse(args.windows, args.seed), args.dtype, args.batch, args.workers
    )
    distributed.setup()
    source = distributed.together(lambda: open_shards(args.shards))
    compute = None if args.compute is None else DTYPES[args.compute]
    model = distributed.together(
        lambda: CoordTok.from_pretrained(args.model, args.device or distributed.device(), compute)
    )
    tokenizer = distributed.run_on_main(lambda: TokenizerId(args.model, fingerprint(args.model)))
    start = time.monotonic()
    summary, encoded = encode(
        model, tokenizer, source, args.output, how, progress=distributed.is_main()
    )
    if distributed.is_main():
        print(told(summary, args.output, encoded, time.monotonic() - start))


if __name__ == "__main__":
    distributed.leave(main())
