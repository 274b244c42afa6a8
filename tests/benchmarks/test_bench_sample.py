import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from coordtok.benchmarks.bench_sample import Pair, measure_sampling, untrained_pair
from coordtok.config.load import build, to_dict
from coordtok.config.sampling import SamplerConfig
from coordtok.config.schema import RunConfig
from coordtok.errors import CheckpointError, ConfigError
from coordtok.pretrained.card import Card, GeneratorSettings, Origin, TokenizerId, TokenizerSettings
from coordtok.pretrained.fingerprint import fingerprint
from coordtok.pretrained.write import write_export
from coordtok.train.peak import peak_bytes, reset_peak
from tests.support.ranks import ROOT
from tests.support.runs import TINY

REST = {"run_dir": "run", "data": {"shards": "none"}, "train": {"steps": 1, "global_batch": 1}}
TOKENIZER = {**REST, "model": TINY["model"], "train": TINY["train"]}
MODEL = {"name": "dit", "plane_size": [4, 4, 4], "dim": 16, "heads": 2, "layers": 1}
GENERATOR = {**REST, "model": MODEL, "sampler": {"name": "heun", "steps": 3}}


def pair(**model: Any) -> Pair:
    generator = build(RunConfig, {**GENERATOR, "model": {**MODEL, **model}})
    return untrained_pair(generator, build(RunConfig, TOKENIZER), "cpu", None)


def configs(folder: Path) -> list[str]:
    """Options that name both configs."""
    for name, tree in (("dit", GENERATOR), ("tokenizer", TOKENIZER)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(tree))
    return ["--config", f"{folder}/dit.yaml", "--tokenizer-config", f"{folder}/tokenizer.yaml"]


def exports(folder: Path) -> list[str]:
    """Options that name exports of both."""
    made = pair()
    card = Card(made.tokenizer.config, TokenizerSettings(32), Origin("raw"))
    write_export(folder / "tokenizer", card, made.tokenizer.state_dict())
    reference = TokenizerId("moved", fingerprint(folder / "tokenizer"))
    settings = made.generator.settings
    settings = GeneratorSettings(settings.statistics, reference, SamplerConfig("euler", 2))
    card = Card(made.generator.config, settings, Origin("raw"))
    write_export(folder / "dit", card, made.generator.state_dict())
    return ["--model", f"{folder}/dit", "--tokenizer", f"{folder}/tokenizer"]


def benchmark(monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr("sys.argv", ["benchmark.py", "sample", *options])
    return runpy.run_path(str(ROOT / "scripts/benchmark.py"))["main"]()


@pytest.mark.parametrize(
    ("sampler", "evaluations"),
    [(SamplerConfig("euler_maruyama", steps=4), 4), (SamplerConfig("heun", steps=4), 8)],
)
def test_phases_are_the_whole(sampler: SamplerConfig, evaluations: int) -> None:
    report = measure_sampling(pair(), sampler, num=2, batch=2)
    found = report.figures["sample"]
    parts = [found[name]["seconds_per_video"] for name in ("generator", "decoder")]
    assert min(parts) > 0
    assert found["seconds_per_video"] == pytest.approx(sum(parts))  # of one batch
    assert found["generator"]["evaluations"] == evaluations
    of_a_batch = evaluations * found["generator"]["ms_per_evaluation"] / 1000
    assert of_a_batch == pytest.approx(2 * parts[0])
    for name in ("generator", "decoder"):
        assert found[name]["peak_bytes"] > 0
        assert name in report.text
    settings = report.figures["settings"]
    assert (settings["videos"], settings["weights"]) == (2, "random")
    assert settings["sampler"] == to_dict(sampler)
    assert f"{evaluations} evaluations of" in report.text


def test_guided_classes_take_turns() -> None:
    sampler = SamplerConfig("euler", steps=2, guidance=3)
    report = measure_sampling(pair(classes=2), sampler, num=1, batch=1)
    assert report.figures["sample"]["generator"]["evaluations"] == 2


@pytest.mark.parametrize(
    ("sampler", "num", "batch", "message"),
    [
        (SamplerConfig(), 3, 2, "--num 3: it must be a multiple of --batch 2"),
        (SamplerConfig(), 0, 1, "--num 0: it must be a multiple of --batch 1"),
        (SamplerConfig(), 1, 0, "batch is 0; make at least 1"),
        (SamplerConfig("dopri5"), 1, 1, "how many steps it takes depends on the weights"),
    ],
)
def test_what_cannot_be_measured(sampler, num, batch, message) -> None:
    with pytest.raises(ConfigError, match=message):
        measure_sampling(pair(), sampler, num, batch)


def test_models_that_do_not_belong_together() -> None:
    generator, tokenizer = build(RunConfig, GENERATOR), build(RunConfig, TOKENIZER)
    with pytest.raises(ConfigError, match=r"a generator is wanted, but .* 'coordtok': name"):
        untrained_pair(tokenizer, tokenizer, "cpu", None)
    with pytest.raises(ConfigError, match=r"a tokenizer is wanted, but .* 'dit': name"):
        untrained_pair(generator, generator, "cpu", None)
    with pytest.raises(CheckpointError, match=r"makes plane xy of 4 x 8 .*, not of 4 x 4"):
        pair(plane_size=[4, 4, 8])


def test_configs_are_measured(monkeypatch, tmp_path: Path, capsys) -> None:
    path = tmp_path / "figures.json"
    options = ["--steps", "2", "--num", "1", "--json", str(path)]
    assert benchmark(monkeypatch, *configs(tmp_path), *options) == 0
    assert "4 evaluations of" in capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert figures["command"] == "sample"
    assert figures["settings"]["sampler"]["name"] == "heun"
    assert figures["settings"]["points_per_pass"] == TINY["train"]["points"]
    assert figures["sample"]["generator"]["evaluations"] == 4


def test_exports_are_measured(monkeypatch, tmp_path: Path, capsys) -> None:
    path = tmp_path / "figures.json"
    options = ["--sampler", "euler_maruyama", "--num", "1", "--json", str(path)]
    options += ["--dtype", "bfloat16"]
    assert benchmark(monkeypatch, *exports(tmp_path), *options) == 0
    assert "in bfloat16 on cpu, trained weights; euler_maruyama" in capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert figures["settings"]["points_per_pass"] == 32
    assert figures["sample"]["generator"]["evaluations"] == 2
    (option, folder, *_) = exports(tmp_path / "other")
    assert benchmark(monkeypatch, option, folder) == 2
    assert "is no longer at moved: say where with --tokenizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "dit_tiny"], "--config goes with --tokenizer-config"),
        (["--model", "x", "--tokenizer-config", "x"], "with --model use --tokenizer"),
        (["--model", "none"], "none: no such folder"),
        (["CONFIGS", "--steps", "0"], "sampler.steps is 0; it must be between"),
        (["CONFIGS", "--device", "tpu"], "device tpu cannot be used"),
    ],
)
def test_mistakes_are_one_line(monkeypatch, tmp_path: Path, capsys, options, message) -> None:
    if options[0] == "CONFIGS":
        options = configs(tmp_path) + options[1:]
    assert benchmark(monkeypatch, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_peak_is_that_since_the_reset() -> None:
    cpu = torch.device("cpu")
    large = torch.ones(64 << 20, dtype=torch.uint8)
    reset_peak(cpu)
    with_it = peak_bytes(cpu)
    assert with_it > large.nbytes
    more = torch.ones(64 << 20, dtype=torch.uint8)
    assert peak_bytes(cpu) >= with_it + more.nbytes // 2
