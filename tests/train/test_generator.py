"""Training a generator: through the same loop, checkpoints and resume as a tokenizer."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import save

from coordtok import TriplaneDiT
from coordtok.data.index import VideoSpec
from coordtok.data.latents import LatentSpec
from coordtok.data.tars import LATENT_EXTENSIONS, index_tar
from coordtok.geometry.latent import LatentShape
from coordtok.inference.generation import Generation, generate_chunk, plane_rows
from coordtok.pretrained.card import TokenizerId
from coordtok.train.checkpoint import read_state
from coordtok.train.checkpoint_folder import committed
from coordtok.train.export import export_checkpoint
from tests.support.runs import FP32, Run, finish_both, json_of, kill_at_random
from tests.support.shards import write_tars

MODEL = {
    "name": "dit",
    "plane_size": [4, 6, 2],
    "plane_channels": 2,
    "dim": 24,
    "heads": 2,
    "layers": 2,
    "classes": 2,
}
SPEC = LatentSpec(
    video=VideoSpec(frames=8, height=48, width=16, fps=None),
    dtype="float32",
    latent=LatentShape.triplane((4, 6, 2), 2),
    tokenizer=TokenizerId("exports/nowhere", "a" * 64),
    mean={"xy": (5.0, 0.0), "yt": (0.0, 0.0), "xt": (0.0, 0.0)},
    std={"xy": (2.0, 1.0), "yt": (1.0, 1.0), "xt": (1.0, 0.5)},
)


def write_latents(
    folder: Path,
    samples: int,
    lanes: int,
    fingerprint: str = "a" * 64,
    path: str = "exports/nowhere",
) -> str:
    """Latents of the mean and std that SPEC says, of the classes 0 and 1 in turn."""
    rng = np.random.default_rng(0)
    shards: list[list[tuple[str, bytes]]] = []
    for lane in range(lanes):
        shards.append([])
        for number in range(lane, samples, lanes):
            planes = {
                name: rng.normal(SPEC.mean[name], SPEC.std[name], shape).astype(np.float32)
                for name, shape in SPEC.latent.shapes.items()
            }
            info = {"class": number % 2, "frames": 8}
            shards[-1] += [
                (f"clip{number:03d}.safetensors", save(planes)),
                (f"clip{number:03d}.json", json.dumps(info).encode()),
            ]
    codec = {**SPEC.codec(), "tokenizer": {"path": path, "fingerprint": fingerprint}}
    entry = partial(index_tar, extensions=LATENT_EXTENSIONS)
    return str(write_tars(folder, shards, SPEC.video, lanes=lanes, codec=codec, entry=entry))


@pytest.fixture(scope="module")
def latents(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_latents(tmp_path_factory.mktemp("latents") / "train", samples=14, lanes=4)


@pytest.fixture
def new_generator(tmp_path: Path, latents: str) -> Callable[..., Run]:
    """Function (name, **sections) that makes a run of a tiny generator."""

    def make(name: str = "run", **sections: dict) -> Run:
        folder = tmp_path / name
        config = {
            "run_dir": str(folder),
            "model": {key: MODEL[key] for key in MODEL if not key.startswith("plane")},
            "data": {"shards": latents, "val_shards": latents, "workers": 0},
            "train": {
                "steps": 6, "global_batch": 4, "log_every": 1, "save_every": 3, "eval_every": 6,
                "eval_batch": 2, "sample_clips": 2,
            },
            "optim": {"lr": 3e-3, "weight_decay": 0.0},
            "ema": {"decay": 0.9},
            "sampler": {"steps": 3},
        }  # fmt: skip
        for section, values in sections.items():
            config[section] = {**config[section], **values}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return Run(path, folder)

    return make


NewRun = Callable[..., Run]


SHARDINGS = [
    ("zero3", 1),
    pytest.param("zero3_fp32", 2, marks=pytest.mark.slow),
    pytest.param("zero2", 2, marks=pytest.mark.slow),
    pytest.param("zero1", 1, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "ranks"), SHARDINGS)
def test_resumes_bit_for_bit_and_samples_disturb_nothing(
    new_generator: NewRun, tmp_path: Path, name: str, ranks: int
) -> None:
    """Samples take the averaged weights for a moment; the run with none has the same losses."""
    json = json_of(name, tmp_path)
    run = new_generator("with", train={"eval_every": 1})
    run(ranks=ranks, json=json)
    losses = run.losses()
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    model = yaml.safe_load((run.folder / "config.yaml").read_text())["model"]
    assert (model["plane_size"], model["plane_channels"]) == ([4, 6, 2], 2)
    assert (run.folder / "samples/step_00000006_samples.png").is_file()
    run("--resume", str(run.folder / "checkpoints/step_00000003"), ranks=ranks, json=json)
    assert run.losses() == losses
    without = new_generator("without")
    without(ranks=ranks, json=json)
    assert without.losses() == losses


@pytest.mark.slow
def test_pictures_show_what_the_averaged_weights_make(
    new_generator: NewRun, tmp_path: Path
) -> None:
    """Two ranks, and no parameter is whole on each of them between its uses."""
    config = json.loads(Path(FP32).read_text())
    config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (tmp_path / "zero3.json").write_text(json.dumps(config))
    run = new_generator(optim={"lr": 3e-2}, train={"steps": 4, "eval_every": 2})
    run(ranks=2, json=tmp_path / "zero3.json")
    shown = np.asarray(Image.open(run.folder / "samples/step_00000004_samples.png")).astype(int)
    distance = {}
    for weights in ("ema", "raw"):
        export_checkpoint(str(run.folder), tmp_path / weights, weights)
        model = TriplaneDiT.from_pretrained(tmp_path / weights)
        how = Generation(model.settings.sampler, 0, (0, 1), 2)
        rows = plane_rows(generate_chunk(model, model.config, model.device, range(2), how))
        made = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
        distance[weights] = np.abs(shown - made).max()
    assert distance["ema"] <= 1 < distance["raw"]


def test_ranks_do_not_show_and_learning_beats_the_mean_velocity(new_generator: NewRun) -> None:
    values = []
    for ranks in (1, 2):
        run = new_generator(f"{ranks}", train={"steps": 20}, optim={"lr": 1e-2})
        run(ranks=ranks, json=FP32)
        (line,) = run.lines("val_loss")[-1:]
        values.append((run.losses(), line["val_loss"]))
        assert line["val_loss"] < line["val_loss_mean_velocity"]
    assert values[1][0] == pytest.approx(values[0][0], rel=1e-5)
    assert values[1][1] == pytest.approx(values[0][1], rel=1e-5)


def test_a_run_becomes_an_export_that_knows_its_latents(
    new_generator: NewRun, tmp_path: Path
) -> None:
    run = new_generator(train={"steps": 3, "eval_every": 3})
    run()
    for weights in ("raw", "ema"):
        checkpoint, card = export_checkpoint(str(run.folder), tmp_path / weights, weights)
        model = TriplaneDiT.from_pretrained(tmp_path / weights)
        assert model.statistics.mean.xy.tolist() == [5.0, 0.0]
        assert model.settings.tokenizer.fingerprint == "a" * 64
        assert model.settings.sampler.steps == 3
    assert not torch.equal(model.blocks[0].mlp.up.weight, torch.zeros(()))
    assert read_state(checkpoint).facts["statistics"] == card.settings.statistics


def test_statistics_stay_those_of_the_beginning(new_generator: NewRun, tmp_path: Path) -> None:
    """More data, whose statistics differ, must not change what the model's numbers mean."""
    run = new_generator(train={"steps": 3, "eval_every": 3})
    run()
    before = read_state(committed(run.folder / "checkpoints")[0]).facts
    more = write_latents(tmp_path / "more", samples=20, lanes=4)
    index = json.loads((Path(more) / "index.json").read_text())
    assert index["codec"]["mean"] == before["statistics"]["mean"]
    run("train.steps=4", f"data.shards={more}", "--allow-grown-data")
    assert read_state(committed(run.folder / "checkpoints")[0]).facts == before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.plane_size=[4,4,4]"], "set model.plane_size=[4,6,2] and model.plane_channels=2"),
        (["tokenizer=exports/nowhere"], "exports/nowhere: no such folder"),
        (["data.shards={video}", "data.val_shards=null"], "holds video where latents are wanted"),
        (["data.val_shards={other}"], "was encoded by another tokenizer"),
        (["data.shards=[{own},{other}]"], "was encoded by another tokenizer"),
    ],
)
def test_what_it_cannot_train_on_is_one_line(
    new_generator: NewRun,
    tmp_path: Path,
    shards: str,
    latents: str,
    overrides: list[str],
    message: str,
) -> None:
    names = {"video": shards, "own": latents, "other": str(tmp_path / "other")}
    write_latents(tmp_path / "other", samples=4, lanes=4, fingerprint="b" * 64)
    run = new_generator()
    output = run(*(override.format(**names) for override in overrides), code=2)
    assert message in output
    assert "Traceback" not in output


def test_a_tokenizer_does_not_train_on_latents(new_run: NewRun, latents: str) -> None:
    assert "latents" in new_run()(f"data.shards={latents}", "data.val_shards=null", code=2)


def test_a_class_that_one_rank_alone_meets_ends_both(new_generator: NewRun) -> None:
    """Odd samples are of class 1, and in lanes of rank 1."""
    run = new_generator()
    started = run.start("model.classes=1", ranks=2)
    assert started.wait() == [2, 2], started.output
    assert "is of class 1, but model.classes is 1" in started.output
    assert "Traceback" not in started.output


@pytest.mark.slow
def test_what_spoils_a_picture_ends_no_run(new_generator: NewRun, tmp_path: Path) -> None:
    """A damaged tokenizer, which rank 0 alone looks at, and a tolerance that nothing keeps."""
    (tmp_path / "damaged").mkdir()
    shards = write_latents(tmp_path / "own", samples=4, lanes=4, path=str(tmp_path / "damaged"))
    run = new_generator(
        data={"shards": shards, "val_shards": None}, train={"steps": 2}, ema={"decay": 0.0}
    )
    run(ranks=2)
    assert (run.folder / "samples/step_00000002_samples.png").is_file()
    output = run("train.steps=3", "sampler.name=dopri5", "sampler.tolerance=1e-30", ranks=2)
    assert "warning: no picture of samples at step 3: sampler.tolerance is 1e-30" in output
    assert not (run.folder / "samples/step_00000003_samples.png").exists()


@pytest.mark.slow
def test_weights_alone_start_another_run(
    new_generator: NewRun, new_run: NewRun, tmp_path: Path
) -> None:
    first, tokenizer = new_generator("first"), new_run("tokenizer")
    first("train.steps=4")
    tokenizer("train.steps=1")
    export_checkpoint(str(first.folder), tmp_path / "dit", "raw")
    second = new_generator("second")
    second(f"train.init_from={tmp_path / 'dit'}", "train.steps=1")
    assert second.losses()[1] < first.losses()[1]
    third = new_generator("third")
    output = third(f"train.init_from={tokenizer.folder}", code=2)
    assert "is of another model: model.name is coordtok there and dit here" in output


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "ranks"), [(2, 1), (3, 2)])
def test_sigkill_at_random_moments_changes_nothing(
    new_generator: NewRun, kills: int, ranks: int
) -> None:
    train, data = {"save_every": 5, "eval_every": 20, "keep_last": 2}, {"workers": 2}
    whole = new_generator("whole", train=train, data=data)
    killed = new_generator("killed", train=train, data=data)
    kill_at_random(killed, kills, ranks, seed=kills)
    finish_both(whole, killed, ranks)
    assert killed.losses() == whole.losses()
    assert killed.lines("val_loss") == whole.lines("val_loss")
    names = {path.name for path in (whole.folder / "samples").iterdir()}
    for name in names:
        pictures = [(run.folder / "samples" / name).read_bytes() for run in (whole, killed)]
        assert pictures[0] == pictures[1]
