#!/usr/bin/env python
"""Fit the linear codec that tokenizers are compared with: principal components of tubelets, as many
numbers a clip as a config's latent.

    python scripts/fit_linear_codec.py --config tokenizer_film --shards shards/film/train \\
        --output shards/film/linear_codec.safetensors

`scripts/evaluate.py --linear-codec FILE` gives its PSNR beside a model's, data.linear_codec=FILE
beside that of validation.
"""

import argparse
import sys
from pathlib import Path

from coordtok import cli
from coordtok.config.load import load_config
from coordtok.config.models import TokenizerModelConfig
from coordtok.errors import ConfigError


def parse_args() -> argparse.Namespace:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--config",
        metavar="PRESET_OR_YAML",
        required=True,
        help="the tokenizer's: its clips and the numbers of its latent",
    )
    cli.add_shards(parser, "training shards, or a folder of videos")
    parser.add_argument("--output", metavar="FILE", type=Path, required=True, help="to write")
    parser.add_argument(
        "--tubelet",
        nargs=3,
        type=cli.positive,
        metavar=("T", "H", "W"),
        help="frames, rows and columns (default: 16 16 16, less where they do not divide a clip)",
    )
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help="of the config")
    return parser.parse_intermixed_args()


@cli.exit_on_user_error
def main() -> None:
    args = parse_args()
    model = load_config(args.config, args.overrides).model
    if not isinstance(model, TokenizerModelConfig):
        raise ConfigError(f"--config {args.config} is a generator's; name a tokenizer's")
    from coordtok.data.shards import open_shards
    from coordtok.evaluation.linear_codec import fit_to_shards

    shards = open_shards(args.shards, size=model.video_size)
    codec = fit_to_shards(shards, model, args.tubelet and tuple(args.tubelet))
    codec.save(args.output)
    components = len(codec.basis_KP)
    print(f"{args.output}: {components} components of tubelets of {codec.tubelet}")


if __name__ == "__main__":
    sys.exit(main())
