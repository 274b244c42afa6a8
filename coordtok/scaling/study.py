"""A study: configs x seeds under equal compute, each an ordinary training run.

folder: studies/recipe              # where the runs and the table go
deepspeed: ds_configs/zero3_fp32.json
budget: 1.0e15                      # FLOPs of a run, forward, backward and optimiser
# budgets: [1.0e14, 1.0e15]        # in place of budget: every config with each
# decay: 0.25                      # with it: its last quarter a run's own, what is before shared
seeds: [0, 1, 2]
common: [data.shards=shards/shots/train, data.val_shards=shards/shots/val]
runs:
  - {name: paper, config: tokenizer_shots_paper}
  - {name: recipe, config: tokenizer_shots, set: [optim.lr=1e-3]}
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from coordtok.config.load import build, load_config, to_yaml
from coordtok.config.schema import RunConfig
from coordtok.config.yaml_files import read_yaml
from coordtok.errors import ConfigError, in_clone
from coordtok.scaling.flops import training_step_flops

FRACTIONS = (1 / 8, 1 / 4, 1 / 2, 1)
"""Parts of the budget at which held-out scores are compared."""
_EVALUATIONS = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


@dataclass(frozen=True)
class Candidate:
    """One of the configs that are compared."""

    name: str
    config: str
    """A preset or a YAML file."""
    set: tuple[str, ...] = ()
    """Overrides, key.path=value."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"runs has the name {self.name!r}; use letters, digits, '.', '_' and '-', because "
                "it names a folder"
            )


@dataclass(frozen=True)
class Study:
    """What a study file says."""

    folder: str
    runs: tuple[Candidate, ...]
    deepspeed: str
    budget: float | None = None
    """FLOPs of each run, which decide its number of steps; null keeps each config's train.steps."""
    budgets: tuple[float, ...] = ()
    """Several of them in place of one: every config is trained with each (a ladder)."""
    decay: float | None = None
    """Share of a run's steps, in eighths, at whose end the learning rate falls to `optim.min_lr`
    (wsd): what comes before is trained once for all budgets (scaling.prefixes). Null keeps each
    config's schedule."""
    seeds: tuple[int, ...] = (0,)
    common: tuple[str, ...] = ()
    """Overrides for all runs."""

    def __post_init__(self) -> None:
        names = [candidate.name for candidate in self.runs]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"runs are {names}; name at least one, and each of them differently")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ConfigError(f"seeds are {list(self.seeds)}; give different numbers from 0 on")
        if self.budget is not None and self.budgets:
            raise ConfigError("budget and budgets are both given; give one of them")
        if len(set(self.budgets)) < len(self.budgets):
            raise ConfigError(f"budgets are {list(self.budgets)}; give different ones")
        if self.decay is not None and _eighths(self.decay) not in range(1, _EVALUATIONS):
            raise ConfigError(
                f"decay is {self.decay}; give the share of a run that its rate falls over, in "
                f"eighths: 0.125 to 0.875"
            )
        for budget in (self.budget, *self.budgets):
            if budget is not None and not 0 < budget < float("inf"):
                raise ConfigError(f"budget is {budget}; give FLOPs above 0, or null")


@dataclass(frozen=True)
class StudyRun:
    """One training run of a study."""

    name: str
    seed: int
    config: RunConfig
    deepspeed: str
    flops_per_step: float
    prefix: "StudyRun | None" = field(default=None, repr=False)
    """The run whose steps before its decay are steps of this one too."""

    @property
    def folder(self) -> Path:
        return Path(self.config.run_dir)

    @property
    def flops(self) -> float:
        return self.flops_per_step * self.config.train.steps

    @property
    def config_file(self) -> Path:
        """The YAML that the run is started with."""
        return self.folder.with_name(f"{self.folder.name}.yaml")

    def command(self) -> list[str]:
        """What anybody would type for this run."""
        train = ["scripts/train.py"] if in_clone() else ["--module", "coordtok.commands.train"]
        own = ["--deepspeed", self.deepspeed, "--config", str(self.config_file)]
        return ["deepspeed", *train, *own]


def load_study(path: str) -> Study:
    """Read a study file.

    Raises:
        ConfigError: no such file, not YAML, or keys and values that make no study.
    """
    return build(Study, read_yaml(path))


def study_runs(study: Study) -> list[StudyRun]:
    """All runs of a study, seed by seed and small budgets first, so that every config has a result
    early.

    Raises:
        ConfigError: a config that cannot be trained, or a budget too small for its evaluations.
    """
    budgets: list[float | None] = [*sorted(study.budgets)] or [study.budget]
    runs: list[StudyRun] = []
    for seed in study.seeds:
        before: dict[str, StudyRun] = {}
        for budget in budgets:
            for candidate in study.runs:
                run = _run(study, candidate, seed, budget, before.get(candidate.name))
                runs.append(run)
                if study.decay is not None:
                    before[candidate.name] = run
    return runs


def write_configs(runs: list[StudyRun]) -> None:
    """Write the YAML of each run beside its folder.

    Raises:
        ConfigError: a run was begun with another config.
    """
    for run in runs:
        text = to_yaml(run.config)
        if run.config_file.exists() and run.config_file.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"{run.config_file} is of another study than this one; choose another folder, or "
                "delete that run"
            )
        run.config_file.parent.mkdir(parents=True, exist_ok=True)
        run.config_file.write_text(text, encoding="utf-8")


def _run(
    study: Study, candidate: Candidate, seed: int, budget: float | None, prefix: StudyRun | None
) -> StudyRun:
    name = f"{candidate.name}-{budget:.3g}" if study.budgets else candidate.name
    folder = Path(study.folder) / f"{name}-{seed}"
    own = [f"seed={seed}", f"run_dir={folder}"]
    given = load_config(candidate.config, [*study.common, *candidate.set, *own])
    cost = training_step_flops(given).total
    steps = given.train.steps
    if budget is not None:
        steps = round(budget / cost / _EVALUATIONS) * _EVALUATIONS
    if steps < _EVALUATIONS:
        raise ConfigError(
            f"run {name} has {steps} steps of {cost:.3g} FLOPs, fewer than its "
            f"{_EVALUATIONS} evaluations; raise budget"
        )
    lengths = _lengths(given, steps, study.decay)
    config = load_config(candidate.config, [*study.common, *candidate.set, *own, *lengths])
    return StudyRun(name, seed, config, study.deepspeed, cost, prefix)


def _lengths(given: RunConfig, steps: int, decay: float | None) -> list[str]:
    """What follows from a run's number of steps. The checkpoint at which the rate begins to fall is
    kept to the end."""
    every = max(1, steps // _EVALUATIONS)
    set_to: dict[str, float] = {
        "train.steps": steps,
        "train.eval_every": every,
        "train.save_every": every,
    }
    if decay is not None:
        set_to["optim.decay_steps"] = _eighths(decay) * every
        if given.train.keep_last:
            set_to["train.keep_last"] = max(given.train.keep_last, int(_eighths(decay)) + 1)
    lengths = [f"{key}={value:.0f}" for key, value in set_to.items()]
    return lengths if decay is None else [*lengths, "optim.schedule=wsd"]


def _eighths(share: float) -> float:
    return share * _EVALUATIONS
