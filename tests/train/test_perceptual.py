"""The perceptual fine-tune: whole frames, a frozen network outside the engine, real processes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coordtok.config.load import build
from coordtok.config.models import TokenizerModelConfig
from coordtok.config.schema import RunConfig
from coordtok.data.loader import Batch
from coordtok.data.sample import SampleId
from coordtok.errors import ConfigError
from coordtok.geometry.patches import gather
from coordtok.geometry.pixels import from_uint8
from coordtok.losses.perceptual import load_perceptual
from coordtok.train.tasks.tokenizer import TokenizerTask
from tests.support.random_vgg import write_vgg
from tests.support.runs import TINY, Run

NewRun = Callable[..., Run]
WEIGHT = 0.5


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_vgg(tmp_path_factory.mktemp("vgg") / "own.pth"))


def fine_tune(vgg: str) -> dict[str, dict[str, Any]]:
    """Sections of a run on 2 of 8 whole frames."""
    return {
        "data": {"val_shards": None},
        "train": {"whole_frames": True, "points": 32},
        "perceptual": {"weight": WEIGHT, "weights": vgg},
    }


def test_ranks_do_not_show_and_a_resumed_run_is_the_same(new_run: NewRun, vgg: str) -> None:
    """Under ZeRO-3, on 1 rank and on 2; and from the middle of the run on 1."""
    one, two = new_run("one", **fine_tune(vgg)), new_run("two", **fine_tune(vgg))
    one("train.steps=4", "train.save_every=2", "train.micro_batch=2")
    two("train.steps=2", ranks=2)
    whole, parts = one.lines("loss"), ("loss", "l2", "lpips")
    for found, expected in zip(two.lines("loss"), whole[:2], strict=True):
        assert [found[k] for k in parts] == pytest.approx([expected[k] for k in parts], rel=1e-5)
    for line in whole:
        assert line["loss"] == pytest.approx(line["l2"] + WEIGHT * line["lpips"], rel=1e-6)
    start = str(one.folder / "checkpoints/step_00000002")
    one("--resume", start, "train.steps=4", "train.micro_batch=2")
    assert [[line[k] for k in parts] for line in one.lines("loss")] == [
        [line[k] for k in parts] for line in whole
    ]
    for path in one.folder.glob("checkpoints/*/*"):
        assert b"features.0" not in path.read_bytes(), path


def test_missing_weights_end_all_ranks_with_one_line(
    new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COORDTOK_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    run = new_run(**fine_tune(str(tmp_path)))
    started = run.start(ranks=2)
    assert started.wait() == [2, 2], started.output
    assert "vgg16-397923af.pth (SHA-256 397923af" in started.output
    assert f"put it in {tmp_path}, or get it with: curl" in started.output
    assert "Traceback" not in started.output
    assert not run.folder.exists() or not list(run.folder.glob("checkpoints/*"))


def task(vgg: str, model: dict[str, Any] | None = None, **train: Any) -> TokenizerTask:
    sections = fine_tune(vgg)
    run = build(
        RunConfig,
        {
            "run_dir": "unused",
            "model": {**TINY["model"], **(model or {})},
            "data": {"shards": "unused"},
            "train": {**TINY["train"], **sections["train"], **train},
            "perceptual": sections["perceptual"],
        },
    )
    assert isinstance(run.model, TokenizerModelConfig)
    return TokenizerTask(run, run.model, torch.device("cpu"))


class Recall:
    """An engine that answers every query with the patches of `video`, and keeps the query."""

    def __init__(self, video_BTHW3: torch.Tensor, patch: tuple[int, int, int]) -> None:
        self.video_BTHW3, self.patch = video_BTHW3, patch

    def __call__(self, video: Any, index_BN3: torch.Tensor, num_frames: Any) -> torch.Tensor:
        self.index_BN3 = index_BN3
        return gather(self.video_BTHW3, index_BN3, self.patch).requires_grad_()


def batch(*num_frames: int) -> Batch:
    rng = np.random.default_rng(0)
    video = rng.integers(0, 256, (len(num_frames), 8, 32, 32, 3), dtype=np.uint8)
    ids = tuple(SampleId(0, 0, f"clip{number}") for number in range(len(num_frames)))
    data = {"video": torch.from_numpy(video), "num_frames": torch.tensor(num_frames)}
    return Batch(data, ids, ())


@pytest.mark.parametrize("depth", [1, 2])
def test_patches_become_the_frames_that_were_drawn(vgg: str, depth: int) -> None:
    """Also where a patch is several frames deep."""
    clips, patch = batch(8, 5), (depth, 8, 8)
    answer = from_uint8(clips.data["video"].flip(0))
    engine = Recall(answer, patch)
    found = task(vgg, {"decoder_patch": list(patch)}).loss(engine, clips)
    distance = load_perceptual("lpips", vgg)
    for clip, frames in enumerate((8, 5)):
        slabs = engine.index_BN3[clip, ::16, 0].tolist()
        assert len(set(slabs)) == 2
        drawn = [slab * depth + offset for slab in slabs for offset in range(depth)]
        assert max(drawn) < frames
        pictures = answer[clip, drawn], from_uint8(clips.data["video"])[clip, drawn]
        expected = distance(*pictures).mean().item()
        assert found["lpips"][clip].item() == pytest.approx(expected, rel=1e-5)
        l2 = (pictures[0] - pictures[1]).square().mean().item()
        assert found["loss"][clip].item() == pytest.approx(l2 + WEIGHT * expected, rel=1e-5)


def test_a_clip_of_too_few_frames_shows_some_twice(vgg: str) -> None:
    clips = batch(1, 8)
    engine = Recall(from_uint8(clips.data["video"]), (1, 8, 8))
    found = task(vgg).loss(engine, clips)
    assert engine.index_BN3[0, :, 0].unique().tolist() == [0]
    assert math.isfinite(found["loss"][0].item())


@pytest.mark.parametrize(
    ("model", "train", "message"),
    [
        ({}, {"points": 24}, "train.points is 24; .* a multiple of a frame's 16 patches"),
        ({}, {"whole_frames": False}, "single patches make no picture"),
        (
            {"height": 8, "plane_size": [4, 1, 4], "plane_patch": [2, 1, 2]},
            {"points": 4},
            "frames are 8 x 32, but VGG16 needs at least 16 x 16",
        ),
    ],
)
def test_what_cannot_be_fine_tuned(
    vgg: str, model: dict[str, Any], train: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        task(vgg, model, **train)
