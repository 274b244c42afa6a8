"""What `pip install` gives outside of a clone: commands, presets, DeepSpeed JSONs, and no more
libraries than using an export needs."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
COMMANDS = dict(
    line.split(" = ")
    for line in SETUP["options.entry_points"]["console_scripts"].strip().splitlines()
)


def test_every_script_is_a_command_and_every_command_has_its_main() -> None:
    scripts = {path.stem for path in ROOT.glob("scripts/[!_]*.py")}
    named = {name.removeprefix("coordtok-").replace("-", "_") for name in COMMANDS}
    assert named == scripts | {"build_shards", "verify_shards"}
    for name, place in COMMANDS.items():
        module, function = place.split(":")
        assert module.endswith(f".{name.removeprefix('coordtok-').replace('-', '_')}")
        path = module.replace("coordtok.commands", "scripts").replace(".", "/")
        tree = ast.parse((ROOT / f"{path}.py").read_text())
        assert function in [each.name for each in tree.body if isinstance(each, ast.FunctionDef)]


def test_outside_of_training_files_import_what_is_always_installed() -> None:
    """At their top; what an extra brings is imported where it is used, and its absence told."""
    required = re.findall(r"^(\w+)", SETUP["options"]["install_requires"], re.MULTILINE)
    always = {{"pyyaml": "yaml", "pillow": "PIL"}.get(name, name) for name in required}
    always |= {"coordtok", "data_prep", *sys.stdlib_module_names}
    for path in [*ROOT.glob("coordtok/**/*.py"), *ROOT.glob("data_prep/*.py")]:
        if ROOT / "coordtok/train" not in path.parents:
            assert {name.split(".")[0] for name in top_imports(path)} <= always, path


def top_imports(path: Path) -> list[str]:
    """The modules that a file imports whenever it is imported."""
    body = ast.parse(path.read_text()).body
    plain = [alias.name for each in body if isinstance(each, ast.Import) for alias in each.names]
    return plain + [each.module or "" for each in body if isinstance(each, ast.ImportFrom)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed package, made from a copy of what goes into it."""
    source, target = (tmp_path_factory.mktemp(name) for name in ("source", "target"))
    for name in ("coordtok", "data_prep", "scripts", "ds_configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    subprocess.run(
        [*pip, "--target", str(target), str(source)], check=True, capture_output=True, cwd=source
    )
    return target


def run_installed(installed: Path, *command: str) -> str:
    """What a command prints that finds the installed package alone."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        command, cwd=installed, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout


def test_an_installed_command_names_others_as_they_are_installed(
    installed: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        f"{{folder: {tmp_path}/runs, deepspeed: zero3, runs: [{{name: a, config: quickstart}}]}}"
    )
    scaling = str(installed / "bin/coordtok-scaling")
    printed = run_installed(installed, scaling, "run", str(study), "--print")
    assert printed.startswith("deepspeed --module coordtok.commands.train --deepspeed zero3 ")
    told = run_installed(installed, scaling, "plan", "--help")
    assert "    coordtok-scaling plan --config tokenizer_l" in told


def test_an_installed_command_knows_presets_and_jsons(installed: Path) -> None:
    assert {path.name for path in (installed / "bin").iterdir()} == COMMANDS.keys()
    said = run_installed(installed, str(installed / "bin/coordtok-train"), "--help")
    assert all(f" {path.stem}" in said for path in ROOT.glob("coordtok/config/presets/*.yaml"))
    code = "from coordtok.config.sharding import sharding_json; print(sharding_json('zero3'))"
    path = run_installed(installed, sys.executable, "-c", code).strip()
    assert path == str(installed / "coordtok/ds_configs/zero3.json")
    assert Path(path).read_text() == (ROOT / "ds_configs/zero3.json").read_text()
