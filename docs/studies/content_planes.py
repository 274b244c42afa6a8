"""What the linear path of `tokenizer_film` says of held-out clips before the first step, by how a
latent of the same size is shared among planes, for docs/recipe.md.

    python docs/studies/content_planes.py SHARDS_TRAIN SHARDS_VAL

The path is fitted to six windows of every training sample and scored on one of every held-out one,
like the linear codec of as many numbers.
"""

import statistics
import sys
from collections.abc import Callable

import torch

from coordtok import CoordTok
from coordtok.benchmarks.table import machine_facts, table
from coordtok.config.load import load_config
from coordtok.data.clip_reader import ClipReader
from coordtok.data.clips import Clip, WindowChoice, one_per_sample
from coordtok.data.shards import OpenedShards, open_shards
from coordtok.data.video_reader import VideoWindows
from coordtok.evaluation.linear_codec import (
    MOST_TUBELETS,
    LinearCodec,
    components_for,
    default_tubelet,
)
from coordtok.evaluation.metrics import psnr
from coordtok.geometry.latent import Size3
from coordtok.geometry.pixels import from_uint8
from coordtok.models.linear_fit import fit
from coordtok.scaling.parameters import parameters

Row = list[str]
PRESET = "tokenizer_film"
WINDOWS = 6
SHARES = ((1, "[53,53,53]"), (1, "[145,7,7]"), (2, "[72,7,7]"), (4, "[36,7,7]"), (8, "[19,3,3]"))
"""Content planes, and channels of xy, yt and xt."""


def clips(opened: OpenedShards, chosen: list[Clip], size: Size3) -> torch.Tensor:
    """(B, T, H, W, 3) uint8."""
    batches = ClipReader(opened, chosen, VideoWindows(*size), batch=1)
    return torch.cat([batch.data["video"] for batch in batches if batch.numbers])


def score(reconstruct: Callable[[torch.Tensor], torch.Tensor], held_out: torch.Tensor) -> str:
    """PSNR as `scripts/evaluate.py` has it."""
    with torch.no_grad():
        found = [psnr(reconstruct(video)[0], from_uint8(video)[0]) for video in held_out.split(1)]
    return f"{statistics.fmean(found):.2f}"


def of_share(
    content_planes: int, channels: str, known: torch.Tensor, held_out: torch.Tensor
) -> Row:
    keys = [f"model.content_planes={content_planes}", f"model.plane_channels={channels}"]
    model = load_config(PRESET, keys).model
    tokenizer = CoordTok(model).eval()
    tokenizer.load_state_dict(fit(model, known), strict=False)
    found = score(lambda video: tokenizer.decode(tokenizer.encode(video)), held_out)
    path = parameters(model)["linear path"] / 1e6
    return [str(content_planes), channels, f"{model.latent.numbers:,}", f"{path:.1f} M", found]


def of_codec(floats: int, size: Size3, known: torch.Tensor, held_out: torch.Tensor) -> Row:
    tubelet = default_tubelet(size)
    count = components_for(floats, size, tubelet)
    codec = LinearCodec.fit(known.split(1), tubelet, count, -(-MOST_TUBELETS // len(known)))
    cells = ["linear codec", f"{count} of {tubelet}", f"{codec.floats(size):,}", ""]
    return [*cells, score(codec.reconstruct, held_out)]


def main() -> None:
    train, val = (open_shards(folder) for folder in sys.argv[1:])
    model = load_config(PRESET).model
    size, index = model.video_size, train.index
    shards = range(len(index.shards))
    windows = [each for n in shards for each in WindowChoice(WINDOWS).of_shard(index, n, size[0])]
    known = clips(train, windows, size)
    held_out = clips(val, one_per_sample(val.index, size[0], 0), size)
    rows = [["content planes", "channels", "numbers", "parameters of the path", "PSNR, dB"]]
    for share in SHARES:
        rows.append(of_share(*share, known, held_out))
        print(*rows[-1], file=sys.stderr, flush=True)
    rows.append(of_codec(model.latent.numbers, size, known, held_out))
    print(table(rows))
    print(machine_facts())


if __name__ == "__main__":
    main()
