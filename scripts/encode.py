#!/usr/bin/env python
"""Encode a dataset of video shards into latent shards, to train a diffusion transformer on:

    python scripts/encode.py --model exports/mine --shards shards/mine/train \\
        --output shards/mine_latents/train
    deepspeed scripts/encode.py --model exports/mine --shards shards/mine/train \\
        --output shards/mine_latents/train --windows 8 --batch 16

On any number of ranks (deepspeed, torchrun, or plain python for one). Killed at any time, the
same command continues where it stood. The output folder gets a tar of latents for each tar of
video, skipped.jsonl with the videos that could not be read, and an index.json with the tokenizer's
fingerprint and the mean and std of every channel. scripts/decode.py turns it back into video.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coordtok import cli

if TYPE_CHECKING:
    from coordtok.inference.encode_shards import Summary


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    cli.add_model(parser)
    cli.add_shards(
        parser,
        "video shards at the model's size: a folder, a URL (http, s3, gs, hf), or a pipe: command; "
        "or a folder of videos",
    )
    cli.add_output(parser, "folder to make, or to continue")
    parser.add_argument(
        "--windows",
        metavar="all|N",
        default="all",
        help="all: consecutive windows of each video, the last one moved back to end with it; N: "
        "that many at random places (default: %(default)s)",
    )
    cli.add_seed(parser, "of the random places")
    parser.add_argument(
        "--store-dtype",
        "--dtype",
        choices=cli.DTYPES,
        default="bfloat16",
        help="of the stored planes; bfloat16 takes half the room (default: %(default)s)",
    )
    parser.add_argument(
        "--compute-dtype",
        "--compute",
        choices=cli.DTYPES,
        help="convert the weights to this before computing (default: the one they are stored in)",
    )
    parser.add_argument(
        "--batch",
        type=cli.up_to(cli.MOST_BATCH),
        default=4,
        metavar="B",
        help="clips of a forward pass; the last bit of a plane depends on it, and not on the "
        "number of ranks (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=cli.up_to(cli.MOST_WORKERS),
        metavar="N",
        help="processes of each rank that decode video ahead (default: one for each of its cores, "
        "at most 8)",
    )
    cli.add_device(parser)
    cli.add_launcher(parser)
    return parser.parse_args()


def summary_line(summary: "Summary", output: Path, encoded: int, seconds: float) -> str:
    rate = f"{encoded / seconds:.1f} clips/s" if encoded else "encoded before"
    skipped = f"; {summary.skipped} videos skipped, see skipped.jsonl" if summary.skipped else ""
    return (
        f"{output}: {summary.clips} latents in {summary.shards} shards, {summary.lanes} lanes, "
        f"{summary.bytes / 1e6:.1f} MB; {rate}{skipped}"
    )


@cli.exit_on_user_error
def main() -> None:
    args = parse_args()
    from coordtok import distributed
    from coordtok.data.clips import WindowChoice
    from coordtok.data.shards import open_shards
    from coordtok.inference.encode_shards import Encoding, encode
    from coordtok.models.tokenizer import CoordTok
    from coordtok.pretrained.card import TokenizerId
    from coordtok.pretrained.fingerprint import fingerprint
    from coordtok.pretrained.write import DTYPES

    workers = min(8, distributed.cores_per_rank()) if args.workers is None else args.workers
    choice = WindowChoice.parse(args.windows, args.seed)
    how = Encoding(choice, args.store_dtype, args.batch, workers)
    distributed.setup()
    model = distributed.together(
        lambda: CoordTok.from_pretrained(
            args.model, args.device or distributed.device(), DTYPES.get(args.compute_dtype)
        )
    )
    size = model.config.video_size
    shards = distributed.together(lambda: open_shards(args.shards, size=size))
    tokenizer = distributed.run_on_main(lambda: TokenizerId(args.model, fingerprint(args.model)))
    start = time.monotonic()
    summary, encoded = encode(
        model, tokenizer, shards, args.output, how, progress=distributed.is_main()
    )
    if distributed.is_main():
        print(summary_line(summary, args.output, encoded, time.monotonic() - start))


if __name__ == "__main__":
    cli.leave(main())
