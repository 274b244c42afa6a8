"""Studies: which runs they are, what is left to train of them, and the table of their scores."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from coordtok.errors import ConfigError
from coordtok.scaling.flops import training_step_flops
from coordtok.scaling.ranking import as_table, is_finished, ranking
from coordtok.scaling.study import StudyRun, load_study, study_runs, write_configs
from tests.support.ranks import start
from tests.support.runs import FP32, TINY, Run, wait_for

MakeStudy = Callable[..., Path]


@pytest.fixture
def make_study(tmp_path: Path, shards: str, val_shards: str) -> MakeStudy:
    """Function (**keys) that writes a study of a narrow and a wide tiny model."""
    config = tmp_path / "tiny.yaml"
    data = {"shards": shards, "val_shards": val_shards, "workers": 0}
    config.write_text(yaml.safe_dump({"run_dir": "unused", **TINY, "data": data}))

    def make(**keys: object) -> Path:
        runs = [
            {"name": "narrow", "config": str(config)},
            {"name": "wide", "config": str(config), "set": ["model.dim=48"]},
        ]
        study = {"folder": str(tmp_path / "study"), "deepspeed": str(FP32), "runs": runs, **keys}
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(study))
        return path

    return make


def runs_of(path: Path) -> list[StudyRun]:
    return study_runs(load_study(str(path)))


def test_all_runs_have_the_budget_and_nothing_else_in_common_but_the_study(
    make_study: MakeStudy,
) -> None:
    runs = runs_of(make_study(budget=2e10, seeds=[3, 5], common=["optim.lr=0.5"]))
    assert [(run.name, run.seed) for run in runs] == [
        ("narrow", 3), ("wide", 3), ("narrow", 5), ("wide", 5)
    ]  # fmt: skip
    assert {run.config.optim.lr for run in runs} == {0.5}
    assert len({run.folder for run in runs}) == 4
    for run in runs:
        train = run.config.train
        assert run.config.seed == run.seed
        assert train.steps == 8 * train.eval_every == 8 * train.save_every
        assert run.flops == pytest.approx(2e10, rel=4 / train.steps)
        assert run.flops_per_step == training_step_flops(run.config).total
    assert runs[0].config.train.steps > 2 * runs[1].config.train.steps


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"budget": 1e3}, "run narrow has 0 steps .* fewer than its 8 evaluations; raise budget"),
        ({"budget": -1}, "budget is -1.0; give FLOPs above 0"),
        ({"seeds": [1, 1]}, r"seeds are \[1, 1\]; give different numbers"),
        ({"seeds": 3}, "seeds is 3; it must be a list"),
        ({"runs": []}, "name at least one"),
        ({"runs": [{"name": "../a", "config": "quickstart"}]}, "runs has the name '../a'"),
        ({"runs": [{"name": "a", "config": "quick"}]}, "no preset and no file is called 'quick'"),
        ({"run": []}, r"unknown key run \(did you mean runs\)"),
    ],
)
def test_studies_that_cannot_be_run_are_refused(
    make_study: MakeStudy, keys: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        runs_of(make_study(**keys))


def test_a_folder_of_another_study_is_refused(make_study: MakeStudy) -> None:
    write_configs(runs_of(make_study(budget=2e10)))
    write_configs(runs_of(make_study(budget=2e10)))
    with pytest.raises(ConfigError, match="is of another study than this one"):
        write_configs(runs_of(make_study(budget=3e10)))


def test_the_table_has_the_scores_at_parts_of_the_budget(make_study: MakeStudy) -> None:
    runs = runs_of(make_study(budget=2e10, seeds=[0, 1]))
    for run in runs[:3]:  # the wide model's second seed has not begun
        steps = run.config.train.steps
        lines = [{"step": steps // 8 * n, "val_psnr": 10.0 + n + run.seed} for n in range(1, 9)]
        lines += [{"step": steps, "loss": 1.0, "seconds": 60.0 + run.seed}]
        run.folder.mkdir(parents=True)
        text = "\n".join(map(json.dumps, lines)) + '\n{"step": 3, "val_p'
        (run.folder / "metrics.jsonl").write_text(text)
    narrow, wide = ranking(runs)
    assert narrow["seconds"] == 60.5
    assert narrow["scores"][0] == {"mean": 11.5, "spread": 1.0, "count": 2}
    assert [score["mean"] for score in wide["scores"]] == [11, 12, 14, 18]
    table = as_table([narrow, wide]).splitlines()
    assert [cell.strip() for cell in table[2].split("|")][-3:-1] == ["14.50 ± 0.50", "18.50 ± 0.50"]
    assert "val_psnr, 1/8" in table[0]
    assert not any(map(is_finished, runs)), "no run has its last checkpoint"


@pytest.mark.slow
def test_a_killed_study_goes_on_and_finished_runs_are_left_alone(
    make_study: MakeStudy, tmp_path: Path
) -> None:
    path = make_study(budget=1e10)
    runs = runs_of(path)
    started = start("scaling.py", "run", path, fresh=True)
    wait_for(lambda: is_finished(runs[0]))
    wait_for(lambda: (runs[1].folder / "metrics.jsonl").exists())
    family = psutil.Process(started.processes[0].pid).children(recursive=True)
    started.signal(signal.SIGKILL)
    started.wait()
    assert not psutil.wait_procs(family, timeout=30)[1], "a rank outlives its study"
    before = (runs[0].folder / "metrics.jsonl").stat().st_mtime_ns
    again = start("scaling.py", "run", path, fresh=True)
    assert again.wait() == [0], again.output
    assert all(map(is_finished, runs))
    assert (runs[0].folder / "metrics.jsonl").stat().st_mtime_ns == before
    assert "| wide" in again.stdout()
    assert (tmp_path / "study" / "table.md").read_text() in again.stdout()


@pytest.mark.slow
def test_a_run_that_fails_twice_is_named(make_study: MakeStudy, tmp_path: Path) -> None:
    path = make_study(budget=1e10, common=[f"data.shards={tmp_path / 'nowhere'}"])
    started = start("scaling.py", "run", path, "--parallel", 2, fresh=True)
    assert started.wait() == [1]
    assert "narrow-0: failed, see" in started.stderr()
    log = (tmp_path / "study" / "narrow-0.log").read_text()
    assert log.count("does not exist; build shards there") == 2


def test_the_commands_are_those_of_training(make_study: MakeStudy) -> None:
    path = make_study(budget=2e10)
    printed = start("scaling.py", "run", path, "--print")
    assert printed.wait() == [0], printed.output
    lines = printed.stdout().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith(f"deepspeed scripts/train.py --deepspeed {FP32} --config ")
    assert Run(Path(lines[0].split()[-1]), path.parent).config.is_file()
