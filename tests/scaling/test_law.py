"""Laws: found again in runs that follow one, with intervals that hold, or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from coordtok.errors import DataError
from coordtok.scaling.law import (
    Law,
    Point,
    fit_law,
    largest_budget,
    left_out,
    parabola_minimum,
)
from coordtok.scaling.law_report import points_of, write_law
from coordtok.scaling.study import StudyRun, load_study, study_runs

TRUE = Law(E=0.002, A=5.0, a=0.45, B=3.0, b=0.35)
COST = 50.0


def ladder(noise: float = 0.0, seed: int = 0, law: Law = TRUE) -> list[Point]:
    """Seven sizes on four budgets, as equal compute has it, with relative noise of that size."""
    rng = np.random.default_rng(seed)
    points = []
    for flops in np.geomspace(1e11, 1e13, 4):
        for size in np.geomspace(2e5, 2e7, 7):
            clips = flops / (COST * size) * 10
            loss = law.loss(size, clips) * float(np.exp(noise * rng.standard_normal()))
            points.append(Point(f"{size:.2g}-{flops:.2g}", size, clips, COST * size * clips, loss))
    return points


def test_an_exact_law_is_found_again() -> None:
    found = fit_law(ladder(), draws=2)
    assert found.law.a == pytest.approx(TRUE.a, rel=1e-3)
    assert found.law.b == pytest.approx(TRUE.b, rel=1e-3)
    assert pytest.approx(TRUE.E, rel=0.02) == found.law.E
    assert found.error < 1e-4
    assert found.per_parameter == pytest.approx(COST)


def test_the_best_size_is_where_the_loss_of_a_budget_is_least() -> None:
    flops = 1e14
    best = TRUE.best_parameters(flops, COST)
    losses = [TRUE.loss(times * best, flops / (COST * times * best)) for times in (0.9, 1, 1.1)]
    assert losses[1] == min(losses)


@pytest.mark.slow
def test_intervals_hold_the_truth_at_their_rate() -> None:
    """90 % intervals: of 20 studies with 1 % noise at most 6 may miss either exponent."""
    missed = {"a": 0, "b": 0}
    for seed in range(20):
        found = fit_law(ladder(0.01, seed), seed, draws=80)
        for name in missed:
            low, high = found.interval(lambda law, name=name: getattr(law, name))
            missed[name] += not low <= getattr(TRUE, name) <= high
    assert max(missed.values()) <= 6, missed


def test_the_largest_run_lies_where_the_others_say_and_a_worse_one_does_not() -> None:
    points = ladder(0.005)
    runs = largest_budget(points)
    assert len(runs) == 7
    assert runs[0].parameters == max(each.parameters for each in points)
    ((low, high),) = left_out(points, runs[:1])
    assert low <= TRUE.loss(runs[0].parameters, runs[0].clips) <= high
    assert not low <= 1.2 * runs[0].loss <= high
    for run, (low, high) in zip(runs, left_out(points, runs)):
        assert low <= TRUE.loss(run.parameters, run.clips) <= high


def test_losses_that_do_not_depend_on_size_say_so(tmp_path: Path) -> None:
    text = write_law(ladder(law=TRUE.__class__(0.002, 0.0, 0.45, 3.0, 0.35)), tmp_path)
    assert "does not depend on size" in text


def test_too_few_or_diverged_runs_are_refused() -> None:
    points = ladder()
    for some in (points[:5], [each for each in points if each.parameters == 2e5]):
        with pytest.raises(DataError, match="cannot carry a law"):
            fit_law(some)
    with pytest.raises(DataError, match="diverged"):
        fit_law([*points, points[0]._replace(loss=float("nan"))])


def test_parabolas_have_a_minimum_only_between_their_runs() -> None:
    budget = [each for each in ladder() if each.flops < 1.1e12]
    assert parabola_minimum(budget[:2]) is None
    falling = [Point("", size, 1, 1, 1 / size) for size in (1.0, 2.0, 4.0, 8.0)]
    assert parabola_minimum(falling) is None
    valley = [Point("", size, 1, 1, 1 + np.log(size / 3) ** 2) for size in (1.0, 2.0, 4.0, 8.0)]
    assert parabola_minimum(valley) == pytest.approx(3)


def test_a_study_of_budgets_becomes_a_report(tmp_path: Path) -> None:
    runs = _finished_ladder(tmp_path)
    assert len(runs) == 12
    assert len({path for run in runs for path in (run.folder, run.config_file)}) == 24
    text = write_law(points_of(runs), tmp_path)
    assert "L = " in text
    assert "best N" in text
    assert (tmp_path / "law.md").read_text() == text
    assert (tmp_path / "law.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 13
    longest = max(run.config.train.steps for run in runs)
    assert 0 < len(points_of(runs, longest)) < len(runs)
    with pytest.raises(DataError, match="no run of the study has"):
        points_of(runs, longest + 1)
    with pytest.raises(DataError, match="no run of the study is finished"):
        points_of(study_runs(load_study(str(_study(tmp_path / "other")))))


def _study(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    runs = [
        {"name": f"d{dim}", "config": "quickstart", "set": [f"model.dim={dim}", "model.heads=4"]}
        for dim in (32, 64, 128, 256)
    ]
    common = ["model.linear_path=false", "optim.warmup_steps=0"]
    study = {
        "folder": str(folder / "study"),
        "deepspeed": "zero1",
        "budgets": [4.5e11, 1.2e12, 3e12],
        "common": common,
        "runs": runs,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    return path


def _finished_ladder(folder: Path) -> list[StudyRun]:
    """The runs of a study, with metrics as if they had been trained and followed a law."""
    runs = study_runs(load_study(str(_study(folder))))
    for number, run in enumerate(runs):
        last = run.config.train.steps
        loss = 0.004 + 2.0 / (1e5 * (1 + number % 4)) ** 0.4 + 0.3 / (8.0 * last) ** 0.5
        (run.folder / "checkpoints").mkdir(parents=True)
        (run.folder / "checkpoints" / "latest").write_text(f"step_{last:08d}\n")
        line = {"step": last, "val_psnr": -10 * np.log10(loss)}
        (run.folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return runs
