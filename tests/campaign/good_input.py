"""Small real inputs of every command that reads files, each made by the command that makes it for a
user, or committed for the tests."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import torch
import yaml

from tests.support.ranks import ROOT, content, new_file
from tests.support.runs import FP32, FRAMES, SIZE, TINY
from tests.support.warm_python import WarmPython

VIDEOS = ("a/one.mp4", "a/two.mp4", "b/three.mkv", "b/four.avi")
_BUILD = (
    f"-m data_prep.build_shards --input videos --workers 1 --lanes 2 --height {SIZE} "
    f"--width {SIZE} --clip-frames {FRAMES} --clips-per-segment 2 --output"
)
_TRAIN = "scripts/train.py --deepspeed zero.json train.steps=2 --config"
RECIPES = {
    "shards": ("", f"{_BUILD} shards"),
    "raw": ("", f"{_BUILD} raw --codec raw"),
    "run": ("shards raw", f"{_TRAIN} run.yaml run_dir=run"),
    "export": ("run", "scripts/export.py run export"),
    "latents": (
        "export raw",
        "scripts/encode.py --model export --shards raw --output latents --workers 0",
    ),
    "dit_run": ("latents", f"{_TRAIN} dit.yaml run_dir=dit_run"),
    "dit": ("dit_run", "scripts/export.py dit_run dit"),
    "samples": (
        "dit export",
        "scripts/sample.py --model dit --num 3 --steps 2 --output samples",
    ),
    "codec.safetensors": (
        "raw",
        "scripts/fit_linear_codec.py --config run.yaml --shards raw --output codec.safetensors "
        "--tubelet 4 8 8",
    ),
    "evaluated": (
        "export raw",
        "scripts/evaluate.py --model export --shards raw --output evaluated --no-ssim",
    ),
}
"""What a command makes: of which others, and its words."""


class Colours(torch.nn.Module):
    """In place of a network whose features are compared."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean(dim=(2, 3, 4)), x.std(dim=(2, 3, 4))], dim=1)


class GoodInputs:
    """A folder of inputs, made when they are needed. All name one another by relative paths."""

    def __init__(self, folder: Path, python: WarmPython) -> None:
        self.folder, self._python = folder, python
        folder.mkdir()
        for number, name in enumerate(VIDEOS):
            _write_video(folder / "videos" / name, _drifting_noise(number))
        _write_lists(folder)
        _write_settings(folder)
        shutil.copytree(ROOT / "tests/fixtures/official", folder / "official")
        torch.jit.script(Colours()).save(folder / "features.pt")

    def make(self, names: Iterable[str]) -> None:
        """See that these are there: files and folders by their paths in the folder."""
        for name in names:
            top = name.split("/")[0]
            if not (self.folder / top).exists():
                needed, words = RECIPES[top]
                self.make(needed.split())
                self._run(words.split())

    def _run(self, words: list[str]) -> None:
        output = new_file()
        process = self._python.start(
            command_line(words), self.folder, environment(self.folder), output, output
        )
        if process.wait() != 0:
            raise RuntimeError(f"{' '.join(words)}:\n{content(output)}")


def command_line(words: list[str]) -> list[str]:
    """What to give python, in any folder, for words that name a script of this repository."""
    return words if words[0] == "-m" else [str(ROOT / words[0]), *words[1:]]


def environment(folder: Path) -> dict[str, str]:
    """Of the commands: they write nothing into the user's own folders."""
    own = {"HOME": str(folder), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own, "DS_ACCELERATOR": "cpu"}


def _drifting_noise(number: int) -> np.ndarray:
    """(T, H, W, 3)"""
    still = np.random.default_rng(number).integers(0, 200, (1, 40, 56, 3))
    moving = still + 2 * np.arange(2 * FRAMES + number)[:, None, None, None]
    return moving.astype(np.uint8)


def _write_video(path: Path, video: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = "mpeg4" if path.suffix == ".avi" else "libx264"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=24)
        stream.height, stream.width = video.shape[1:3]
        for picture in video:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode(None))


def _write_lists(folder: Path) -> None:
    rows = [f"{Path(name).stem},{Path(name).parent},train\n" for name in VIDEOS]
    lists = {
        "videos.txt": "".join(f"videos/{name}\n" for name in VIDEOS),
        "kinetics.csv": "youtube_id,label,split\n" + "".join(rows),
        "splits/classInd.txt": "1 a\n2 b\n",
        "splits/trainlist01.txt": "".join(f"{name} 1\n" for name in VIDEOS),
    }
    (folder / "splits").mkdir()
    for name, text in lists.items():
        (folder / name).write_text(text)


def _write_settings(folder: Path) -> None:
    generator = {"name": "dit", "plane_size": [4, 4, 4], "dim": 24, "heads": 2, "layers": 1}
    train = {"global_batch": 4, "micro_batch": 2, "log_every": 1, "eval_every": 2, "eval_batch": 2}
    data = {"workers": 0, "io_retries": 1}
    wide = {"name": "wide", "config": "run.yaml", "set": ["model.dim=48"]}
    settings = {
        "run.yaml": {
            "run_dir": "out", **TINY, "data": {**data, "shards": "shards", "val_shards": "raw"},
        },
        "dit.yaml": {
            "run_dir": "out", "model": generator, "data": {**data, "shards": "latents"},
            "train": {**train, "steps": 2, "sample_clips": 1}, "sampler": {"steps": 2},
        },
        "study.yaml": {
            "folder": "out", "deepspeed": "zero.json", "budget": 1e10, "common": ["data.workers=0"],
            "runs": [{"name": "narrow", "config": "run.yaml"}, wide],
        },
    }  # fmt: skip
    for name, values in settings.items():
        (folder / name).write_text(yaml.safe_dump(values))
    shutil.copy(FP32, folder / "zero.json")
