"""Steps that runs of a ladder share: the same ones, bit for bit, as in runs of their own."""

import json
from pathlib import Path

import pytest
import yaml

from coordtok.scaling.prefixes import begin_at_prefix
from coordtok.scaling.ranking import is_finished
from coordtok.scaling.study import StudyRun, load_study, study_runs
from coordtok.train.optim import learning_rate
from tests.support.ranks import start
from tests.support.runs import FP32, TINY, Run


@pytest.fixture
def study(tmp_path: Path, shards: str, val_shards: str) -> Path:
    """A ladder of two budgets on one tiny model."""
    config = tmp_path / "tiny.yaml"
    data = {"shards": shards, "val_shards": val_shards, "workers": 0}
    config.write_text(yaml.safe_dump({"run_dir": "unused", **TINY, "data": data}))
    ladder = {
        "folder": str(tmp_path / "study"),
        "deepspeed": str(FP32),
        "budgets": [8e9, 4e9],
        "decay": 0.25,
        "common": ["optim.warmup_steps=2"],
        "runs": [{"name": "tiny", "config": str(config)}],
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(ladder))
    return path


def runs_of(path: Path) -> tuple[StudyRun, StudyRun]:
    short, long = study_runs(load_study(str(path)))
    return short, long


def test_rates_are_the_same_up_to_where_they_part(study: Path) -> None:
    short, long = runs_of(study)
    steps, more = short.config.train.steps, long.config.train.steps
    assert (short.prefix, long.prefix) == (None, short)
    assert more > steps
    parting = steps - short.config.optim.decay_steps
    assert parting % short.config.train.save_every == 0
    assert short.config.train.keep_last * short.config.train.save_every > steps - parting
    rates = [learning_rate(short.config.optim, step, steps) for step in range(1, steps + 1)]
    others = [learning_rate(long.config.optim, step, more) for step in range(1, steps + 1)]
    assert rates[:parting] == others[:parting]
    assert rates[parting] < others[parting]


def test_a_run_begins_where_the_shorter_one_parts_from_it(study: Path) -> None:
    short, long = runs_of(study)
    assert begin_at_prefix(short) == begin_at_prefix(long) == 0, "there is nothing yet"
    step = short.config.train.steps - short.config.optim.decay_steps
    shared = short.folder / "checkpoints" / f"step_{step:08d}"
    shared.mkdir(parents=True)
    (short.folder / "metrics.jsonl").write_text('{"step": 1}\n')
    assert begin_at_prefix(long) == 0, "a checkpoint without a manifest is none"
    (shared / "manifest.json").write_text("{}")
    assert begin_at_prefix(long) == step
    assert (long.folder / "checkpoints" / "latest").read_text() == f"step_{step:08d}\n"
    assert (long.folder / "checkpoints" / shared.name / "manifest.json").read_text() == "{}"
    assert begin_at_prefix(long) == 0, "it has begun"


@pytest.mark.slow
def test_a_shared_run_is_the_run_of_its_own(study: Path, tmp_path: Path) -> None:
    short, long = runs_of(study)
    started = start("scaling.py", "run", study, fresh=True)
    assert started.wait() == [0], started.output
    assert is_finished(short)
    assert is_finished(long)
    own = Run(long.config_file, tmp_path / "own")
    own(f"run_dir={own.folder}")
    shared = Run(long.config_file, long.folder)
    assert shared.losses() == own.losses()
    scores = [[line["val_psnr"] for line in run.lines("val_psnr")] for run in (shared, own)]
    assert scores[0][-1] == scores[1][-1]
    last = f"checkpoints/step_{long.config.train.steps:08d}"
    files = sorted(path.name for path in (own.folder / last).glob("*.safetensors"))
    assert files
    for name in files:
        ours, theirs = (folder / last / name for folder in (long.folder, own.folder))
        assert ours.read_bytes() == theirs.read_bytes()
    first = json.loads((long.folder / "metrics.jsonl").read_text().splitlines()[0])
    assert first["step"] < short.config.train.steps
