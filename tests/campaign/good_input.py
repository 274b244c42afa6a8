"""Small real inputs of every command that reads files, each made by the command that makes it for a
user, or committed for the tests."""

import os
import shutil
from pathlib import Path

import av
import numpy as np
import torch
import yaml

from tests.support.ranks import ROOT
from tests.support.runs import FP32, FRAMES, SIZE, TINY
from tests.support.warm_python import WarmPython

VIDEOS = ("a/one.mp4", "a/two.mp4", "b/three.mkv", "b/four.avi")
_BUILD = ("-m", "data_prep.build_shards", "--workers", 1, "--input", "videos")
_CLIPS = ("--height", SIZE, "--width", SIZE, "--clip-frames", FRAMES, "--clips-per-segment", 2)
_TRAIN = (ROOT / "scripts/train.py", "--deepspeed", "zero.json", "--config")
_GENERATOR = {
    "name": "dit", "plane_size": [4, 4, 4], "dim": 24, "heads": 2, "layers": 1,
}  # fmt: skip


def environment(folder: Path) -> dict[str, str]:
    """Of the commands: they write nothing into the user's own folders."""
    own = {"HOME": str(folder), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, "DS_ACCELERATOR": "cpu"}


class Colours(torch.nn.Module):
    """In place of a network whose features are compared."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean(dim=(2, 3, 4)), x.std(dim=(2, 3, 4))], dim=1)


def make_good_inputs(folder: Path, python: WarmPython) -> None:
    """Fill `folder`, which is new; everything in it names the rest by relative paths."""
    folder.mkdir(parents=True)

    def run(*words: object) -> None:
        with open(folder / "log.txt", "a+") as log:
            process = python.start(
                [str(word) for word in words], folder, environment(folder), log, log
            )
            if process.wait() != 0:
                raise RuntimeError(f"{words}:\n{(folder / 'log.txt').read_text()}")

    _write_sources(folder)
    _write_settings(folder)
    run(*_BUILD, "--output", "shards", *_CLIPS, "--lanes", 2)
    run(*_BUILD, "--output", "raw", *_CLIPS, "--lanes", 2, "--codec", "raw")
    run(*_TRAIN, "run.yaml", "train.steps=2", "run_dir=run")
    run(ROOT / "scripts/export.py", "run", "export")
    run(
        ROOT / "scripts/encode.py", "--model", "export", "--shards", "raw", "--output", "latents",
        "--workers", 0,
    )  # fmt: skip
    run(*_TRAIN, "dit.yaml", "train.steps=2", "run_dir=dit_run")
    run(ROOT / "scripts/export.py", "dit_run", "dit")
    run(
        ROOT / "scripts/sample.py", "--model", "dit", "--num", 3, "--steps", 2, "--output",
        "samples",
    )  # fmt: skip
    run(
        ROOT / "scripts/fit_linear_codec.py", "--config", "run.yaml", "--shards", "raw", "--output",
        "codec.safetensors", "--tubelet", 4, 8, 8,
    )  # fmt: skip
    run(
        ROOT / "scripts/evaluate.py", "--model", "export", "--shards", "raw", "--output",
        "evaluated", "--no-ssim",
    )  # fmt: skip
    torch.jit.script(Colours()).save(folder / "features.pt")
    shutil.copytree(ROOT / "tests/fixtures/official", folder / "official")


def _write_sources(folder: Path) -> None:
    for number, name in enumerate(VIDEOS):
        path = folder / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_video(path, _drifting_noise(number))
    (folder / "videos.txt").write_text("".join(f"videos/{name}\n" for name in VIDEOS))
    rows = [f"{Path(name).stem},{Path(name).parent},train\n" for name in VIDEOS]
    (folder / "kinetics.csv").write_text("youtube_id,label,split\n" + "".join(rows))
    (folder / "splits").mkdir()
    (folder / "splits/classInd.txt").write_text("1 a\n2 b\n")
    (folder / "splits/trainlist01.txt").write_text("".join(f"{name} 1\n" for name in VIDEOS))


def _drifting_noise(number: int) -> np.ndarray:
    """(T, H, W, 3)"""
    still = np.random.default_rng(number).integers(0, 200, (1, 40, 56, 3))
    moving = still + 2 * np.arange(2 * FRAMES + number)[:, None, None, None]
    return moving.astype(np.uint8)


def _write_video(path: Path, video: np.ndarray) -> None:
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=24)
        stream.height, stream.width = video.shape[1:3]
        for picture in video:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))


def _write_settings(folder: Path) -> None:
    data = {"shards": "shards", "val_shards": "raw", "workers": 0, "io_retries": 1}
    train = {"global_batch": 4, "micro_batch": 2, "log_every": 1, "eval_every": 2, "eval_batch": 2}
    settings = {
        "run.yaml": {"run_dir": "out", **TINY, "data": data},
        "dit.yaml": {
            "run_dir": "out",
            "model": _GENERATOR,
            "data": {"shards": "latents", "workers": 0, "io_retries": 1},
            "train": {**train, "sample_clips": 1},
            "sampler": {"steps": 2},
        },
        "study.yaml": {
            "folder": "out",
            "deepspeed": "zero.json",
            "budget": 1e10,
            "common": ["data.workers=0"],
            "runs": [{"name": "narrow", "config": "run.yaml"},
                     {"name": "wide", "config": "run.yaml", "set": ["model.dim=48"]}],
        },
    }  # fmt: skip
    for name, values in settings.items():
        (folder / name).write_text(yaml.safe_dump(values))
    shutil.copy(FP32, folder / "zero.json")
