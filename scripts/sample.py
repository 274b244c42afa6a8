#!/usr/bin/env python
"""Make videos with a generator, each 128 frames (or what its tokenizer has) at once:

    python scripts/sample.py --model exports/dit --num 16 --output out/samples
    deepspeed --num_gpus 8 scripts/sample.py --model exports/dit -n 2048 --output out/fvd \\
        --sampler heun --steps 50 --class 3 --guidance 4

On any number of ranks (deepspeed, torchrun, or plain python for one), with the same result: sample
i depends on --seed and i. The output folder gets an mp4 for each, grid.png and sample.json, which
says how they were made. Killed at any moment, the same command goes on where it stood.
"""

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from coordtok import distributed
from coordtok.cli import add_compute, add_decoding, decoding_of, dtype_of
from coordtok.config.load import build, to_dict
from coordtok.config.schema import SamplerConfig
from coordtok.errors import ConfigError, exit_on_user_error
from coordtok.inference.generation import Generation
from coordtok.inference.sample_videos import SampleRequest, sample_videos, tokenizer_folder
from coordtok.models.dit import TriplaneDiT
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import TokenizerId
from coordtok.pretrained.fingerprint import fingerprint

SAMPLERS = get_args(get_type_hints(SamplerConfig)["name"])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        metavar="DIR",
        required=True,
        help="a generator's export, as scripts/export.py makes it",
    )
    parser.add_argument(
        "--tokenizer",
        metavar="DIR",
        help="the export that made its latents (default: where it lay when they were made)",
    )
    parser.add_argument(
        "-n",
        "--num",
        type=int,
        metavar="N",
        default=16,
        help="videos (default: %(default)s); launchers take --num for theirs: write -n there",
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="folder to make, or to go on with"
    )
    parser.add_argument("--seed", type=int, metavar="N", default=0, help="(default: %(default)s)")
    add_sampler(parser)
    add_decoding(parser, "videos of a forward pass of the generator", 4)
    add_compute(parser)
    parser.add_argument(
        "--fps", type=float, default=25.0, help="of the files (default: %(default)s)"
    )
    parser.add_argument(
        "--save-latents", action="store_true", help="keep the latents as .safetensors as well"
    )
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # from the launcher
    return parser.parse_args()


def add_sampler(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sampler (defaults: as the model's config says)")
    group.add_argument(
        "--sampler", choices=SAMPLERS, help="ODE: euler, heun, dopri5; SDE: the other"
    )
    group.add_argument("--steps", type=int, metavar="N", help="in time, for all but dopri5")
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


@exit_on_user_error
def main() -> None:
    args = parse_args()
    distributed.setup()
    device, dtype = args.device or distributed.device(), dtype_of(args)
    model = distributed.together(lambda: TriplaneDiT.from_pretrained(args.model, device, dtype))
    request = SampleRequest(
        args.num,
        Generation(
            sampler_of(args, model.settings.sampler),
            args.seed,
            classes_of(args.classes),
            args.batch,
        ),
        decoding_of(args),
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
    distributed.leave(main())
