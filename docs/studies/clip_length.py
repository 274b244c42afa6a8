"""What training on longer clips costs: sampled patches against every frame, for docs/scaling.md.

    python docs/studies/clip_length.py OUT.png

Both sides are the same model. Points are sampled as its preset says, however long the clip is;
every frame is decoded in passes of as many points. Planes grow with the clip, four frames to a node
in time. FLOPs and kept bytes of a clip are planned for tokenizer_l in bfloat16; seconds and peak
memory of a forward and a backward pass of one clip are measured for tokenizer_tiny in float32, each
case in a process of its own.
"""

import resource
import statistics
import subprocess
import sys
import time

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from coordtok import CoordTok
from coordtok.benchmarks.table import machine_facts, table
from coordtok.config.load import load_config
from coordtok.config.schema import RunConfig
from coordtok.geometry.grid import PatchGrid
from coordtok.scaling.activations import kept_for_backward
from coordtok.scaling.flops import clip_flops

LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
KINDS = ("sampled", "every frame")
PLANNED, MEASURED = "tokenizer_l", "tokenizer_tiny"
REPEATS = 3
_DECODED = ("reading planes", "point embedding", "decoder blocks", "pixel head", "loss")
_FRAMES_A_NODE = 4


def config(preset: str, frames: int) -> RunConfig:
    """The preset at another length of clips."""
    nodes = frames // _FRAMES_A_NODE
    model = load_config(preset).model
    plane_patch = [min(model.plane_patch[0], nodes), *model.plane_patch[1:]]
    plane_size = [nodes, *model.plane_size[1:]]
    return load_config(
        preset,
        [f"model.frames={frames}", f"model.plane_size={plane_size}",
         f"model.plane_patch={plane_patch}"],
    )  # fmt: skip


def passes(run: RunConfig, kind: str) -> int:
    """Times that the decoder runs over as many points as are sampled."""
    if kind == "sampled":
        return 1
    return -(-grid(run).count // run.train.points)


def grid(run: RunConfig) -> PatchGrid:
    """The patches of a clip that the decoder makes."""
    return PatchGrid(run.model.video_size, run.model.decoder_patch)


def planned(frames: int, kind: str) -> tuple[float, float]:
    """TFLOP of a clip's training, and GB that its forward pass keeps."""
    run = config(PLANNED, frames)
    times = {name: passes(run, kind) for name in _DECODED}
    flops = sum(times.get(name, 1) * part.total for name, part in clip_flops(run).items())
    kept = sum(times.get(name, 1) * part.plain for name, part in kept_for_backward(run, 2).items())
    return flops / 1e12, kept / 1e9


def measured(frames: int, kind: str) -> tuple[float, float]:
    """Seconds of a forward and a backward pass, and GB of memory that they add."""
    command = [sys.executable, __file__, "--measure", str(frames), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, size = done.stdout.split()
    return float(seconds), float(size)


def measure(frames: int, kind: str) -> None:
    """Print what `measured` reads."""
    run = config(MEASURED, frames)
    torch.manual_seed(0)
    model = CoordTok(run.model)
    video = torch.randint(256, (1, *run.model.video_size, 3), dtype=torch.uint8)
    shape = torch.tensor(grid(run).shape)
    index = (torch.rand(1, passes(run, kind), run.train.points, 3) * shape).long()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(1 + REPEATS):
        began = time.perf_counter()
        model(video, index).square().mean().backward()
        seconds.append(time.perf_counter() - began)
        model.zero_grad()
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(statistics.median(seconds[1:]), added * 1024 / 1e9)


def draw(found: dict[str, dict[str, list[tuple[float, float]]]], path: str) -> None:
    """A column for each model, the costs under one another, as lines over the length."""
    figure = Figure(figsize=(9, 6), dpi=100, layout="constrained")
    rows = (("TFLOP a clip", "s a clip"), ("GB kept", "GB added"))
    for column, (source, kinds) in enumerate(found.items()):
        for row, units in enumerate(rows):
            axes = figure.add_subplot(2, 2, 2 * row + column + 1)
            for kind, costs in kinds.items():
                axes.loglog(LENGTHS, [cost[row] for cost in costs], "o-", label=kind, base=2)
            axes.set(xlabel="frames", ylabel=units[column], title=source if row == 0 else None)
            axes.set_xticks(LENGTHS, map(str, LENGTHS))
            axes.yaxis.set_major_formatter("{x:.3g}")
            axes.legend()
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


def main(path: str) -> None:
    sources = {f"{PLANNED}, planned": planned, f"{MEASURED}, measured": measured}
    found = {
        name: {kind: [cost(frames, kind) for frames in LENGTHS] for kind in KINDS}
        for name, cost in sources.items()
    }
    columns = [costs for kinds in found.values() for costs in kinds.values()]
    head = ["frames", "TFLOP", "GB", "every frame: TFLOP", "GB", "s", "GB", "every frame: s", "GB"]
    body = [
        [f"{frames:,}", *(f"{value:,.3g}" for costs in columns for value in costs[number])]
        for number, frames in enumerate(LENGTHS)
    ]
    print(table([head, *body]))
    print("; ".join(f"{name}: {value}" for name, value in machine_facts().items()))
    draw(found, path)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(int(sys.argv[2]), sys.argv[3])
    elif len(sys.argv) == 2:
        main(sys.argv[1])
    else:
        sys.exit(__doc__)
