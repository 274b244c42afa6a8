"""How close frames decoded between two encoded ones come to the real ones.

Of clips with twice the frames that a model takes, every second frame is encoded; the frames left
out lie half-way between two encoded ones, and are decoded there. They are compared with what needs
no interpolation inside the model.

Shapes: F frames, H rows, W columns, 3 colours.
"""

import statistics
from collections.abc import Mapping

import torch

from coordtok.benchmarks.bench_decode import first_clips
from coordtok.benchmarks.table import Report, table
from coordtok.evaluation.metrics import psnr
from coordtok.geometry.pixels import from_uint8
from coordtok.models.tokenizer import CoordTok

ROWS = {
    "encoded": "frames that were encoded",
    "between": "left out, decoded in between",
    "blended": "left out, mean of the decoded frames beside it",
    "held": "left out, decoded frame before it",
    "blended_source": "left out, mean of the source's frames beside it",
}


def measure_in_between(model: CoordTok, shards: str, clips: int, seed: int) -> Report:
    """PSNR of each of `ROWS`, mean over the first `clips` samples with enough frames.

    Raises:
        ConfigError: patches of this model are several frames deep.
        DataError: no sample has twice the model's frames less one.
    """
    frames = 2 * model.config.frames - 1
    scores: dict[str, list[float]] = {name: [] for name in ROWS}
    for batch in first_clips(shards, model, clips, seed, frames):
        for name, score in scores_of(model, batch.data["video"][0]).items():
            scores[name].append(score)
    figures = {name: statistics.fmean(each) for name, each in scores.items()}
    count = len(scores["encoded"])
    cells = [["frames", "PSNR, dB"], *([ROWS[name], f"{figures[name]:.3f}"] for name in ROWS)]
    text = [
        f"{count} clips of {shards}, of which every second frame of {frames} was encoded:",
        table(cells),
    ]
    settings = {"shards": shards, "clips": count}
    return Report({"settings": settings, "in_between": figures}, "\n".join(text))


@torch.no_grad()
def scores_of(model: CoordTok, film_FHW3: torch.Tensor) -> Mapping[str, float]:
    """PSNR of each of `ROWS` for a clip of 2T - 1 frames, uint8."""
    encoded_FHW3, left_out_FHW3 = from_uint8(film_FHW3[::2]), from_uint8(film_FHW3[1::2])
    planes = model.encode(film_FHW3[None, ::2])
    middles = [frame + 0.5 for frame in range(len(left_out_FHW3))]
    decoded_FHW3 = model.decode(planes)[0].cpu()
    between_FHW3 = model.decode(planes, times=middles)[0].cpu()
    guesses = {
        "between": between_FHW3,
        "blended": (decoded_FHW3[1:] + decoded_FHW3[:-1]) / 2,
        "held": decoded_FHW3[:-1],
        "blended_source": (encoded_FHW3[1:] + encoded_FHW3[:-1]) / 2,
    }
    return {
        "encoded": psnr(decoded_FHW3, encoded_FHW3),
        **{name: psnr(guess, left_out_FHW3) for name, guess in guesses.items()},
    }
