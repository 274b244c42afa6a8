#!/usr/bin/env python
"""Decode latent shards, as scripts/encode.py makes them, into mp4 files, one for each sample:

    python scripts/decode.py --model exports/mine --latents shards/mine_latents/train \\
        --output decoded/train --num 8
    deepspeed scripts/decode.py --model exports/mine --latents shards/mine_latents/val \\
        --output decoded/val --frames 0:64:2

On any number of ranks (deepspeed, torchrun, or plain python for one). Killed at any time, the
same command continues where it stood. Files are named after the samples and play at the speed of
their source; decode.json says how they were made.
"""

import argparse

from coordtok import cli


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    cli.add_model(parser, "the export that encoded the latents")
    parser.add_argument(
        "--latents",
        metavar="DIR",
        required=True,
        help="latent shards: a folder, a URL (http, s3, gs, hf), or a pipe: command",
    )
    cli.add_output(parser, "folder to make, or to continue")
    cli.add_num(parser, "only the first N samples (default: all)")
    parser.add_argument(
        "--frames",
        metavar="START:END[:STEP]",
        default=":",
        help="only these frames of each clip, counted from 0 without END; only the passes that "
        "hold one are decoded (default: all)",
    )
    cli.add_decoding(parser, "samples")
    cli.add_compute(parser)
    cli.add_launcher(parser)
    return parser.parse_args()


@cli.exit_on_user_error
def main() -> None:
    args = parse_args()
    from coordtok import distributed
    from coordtok.data.shards import open_shards
    from coordtok.inference.decode_shards import DecodeRequest, decode
    from coordtok.inference.frame_range import FrameRange
    from coordtok.inference.reconstruct import Decoding
    from coordtok.models.tokenizer import CoordTok
    from coordtok.pretrained.card import TokenizerId
    from coordtok.pretrained.fingerprint import fingerprint
    from coordtok.pretrained.write import DTYPES

    decoding = Decoding(args.points_per_pass, args.grouping, args.batch)
    request = DecodeRequest(args.num, FrameRange.parse(args.frames), decoding)
    distributed.setup()
    shards = distributed.together(lambda: open_shards(args.latents))
    model = distributed.together(
        lambda: CoordTok.from_pretrained(
            args.model, args.device or distributed.device(), DTYPES.get(args.compute_dtype)
        )
    )
    tokenizer = distributed.run_on_main(lambda: TokenizerId(args.model, fingerprint(args.model)))
    files = decode(model, tokenizer, shards, args.output, request, progress=distributed.is_main())
    if distributed.is_main():
        print(f"{args.output}: {files} videos")


if __name__ == "__main__":
    cli.leave(main())
