#!/usr/bin/env python
"""Make videos with a generator, each 128 frames (or what its tokenizer has) at once:

    python scripts/sample.py --model exports/dit --num 16 --output samples/mine
    deepspeed --num_gpus 8 scripts/sample.py --model exports/dit -n 2048 --output samples/ucf101 \\
        --sampler heun --steps 50 --class 3 --guidance 4

On any number of ranks (deepspeed, torchrun, or plain python for one), with the same result: sample
i depends on --seed and i. The output folder gets an mp4 for each, grid.png and sample.json, which
says how they were made. Killed at any time, the same command continues where it stood.
"""

import argparse
from dataclasses import fields
from typing import Any

from coordtok import cli
from coordtok.config.load import build, to_dict
from coordtok.config.sampling import SamplerConfig
from coordtok.errors import ConfigError


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    cli.add_model(parser, "a generator's export, as scripts/export.py makes it")
    parser.add_argument(
        "--tokenizer",
        metavar="DIR",
        help="the export that made its latents (default: where it lay when they were made)",
    )
    cli.add_num(parser, "videos (default: %(default)s)", 16)
    cli.add_output(parser, "folder to make, or to continue")
    cli.add_seed(parser, "of the noise")
    add_sampler(parser)
    cli.add_decoding(parser, "videos of a forward pass of the generator", 4)
    cli.add_compute(parser)
    parser.add_argument(
        "--fps", type=float, default=25.0, help="of the files (default: %(default)s)"
    )
    parser.add_argument(
        "--save-latents", action="store_true", help="keep the latents as .safetensors as well"
    )
    cli.add_launcher(parser)
    return parser.parse_args()


def add_sampler(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampler (defaults: as the model's config says)")
    cli.add_sampler(group)
    group.add_argument("--last-step", type=float, metavar="T", help="of euler_maruyama")
    group.add_argument("--tolerance", type=float, metavar="E", help="of dopri5")
    group.add_argument(
        "--class",
        dest="classes",
        metavar="ID[,ID...]",
        help="class of all videos, or classes that they take in turn",
    )
    group.add_argument("--guidance", type=float, metavar="G", help="classifier-free; 1 is none")
    group.add_argument(
        "--guidance-interval",
        nargs=2,
        type=float,
        metavar=("FROM", "TO"),
        help="times between which guidance applies, from 0 (noise) to 1 (data)",
    )


def sampler_of(args: argparse.Namespace, default: SamplerConfig) -> SamplerConfig:
    """The model's settings with what was asked for in their place."""
    asked: dict[str, Any] = {"name": args.sampler}
    asked |= {field.name: getattr(args, field.name) for field in fields(default)[1:]}
    given = {name: value for name, value in asked.items() if value is not None}
    return build(SamplerConfig, {**to_dict(default), **given}, "sampler.")


def classes_of(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--class {text}: give numbers, as in --class 3 or 0,1,2") from None


@cli.exit_on_user_error
def main() -> None:
    args = parse_args()
    from coordtok import distributed
    from coordtok.inference.generation import Generation
    from coordtok.inference.reconstruct import Decoding
    from coordtok.inference.sample_videos import SampleRequest, sample_videos, tokenizer_folder
    from coordtok.models.dit import TriplaneDiT
    from coordtok.models.tokenizer import CoordTok
    from coordtok.pretrained.card import TokenizerId
    from coordtok.pretrained.fingerprint import fingerprint
    from coordtok.pretrained.write import DTYPES

    distributed.setup()
    device, dtype = args.device or distributed.device(), DTYPES.get(args.compute_dtype)
    model = distributed.together(lambda: TriplaneDiT.from_pretrained(args.model, device, dtype))
    request = SampleRequest(
        args.num,
        Generation(
            sampler_of(args, model.settings.sampler),
            args.seed,
            classes_of(args.classes),
            args.batch,
        ),
        Decoding(args.points_per_pass, args.grouping, args.batch),
        args.fps,
        args.save_latents,
    )
    folder = distributed.together(lambda: tokenizer_folder(model, args.tokenizer))
    tokenizer = distributed.together(lambda: CoordTok.from_pretrained(folder, device, dtype))
    model_id, tokenizer_id = distributed.run_on_main(
        lambda: (fingerprint(args.model), TokenizerId(folder, fingerprint(folder)))
    )
    made = sample_videos(
        model,
        model_id,
        tokenizer,
        tokenizer_id,
        args.output,
        request,
        progress=distributed.is_main(),
    )
    if distributed.is_main():
        print(f"{args.output}: {made} videos, and grid.png")


if __name__ == "__main__":
    cli.leave(main())
