"""Imports point from the run towards the mathematics (DESIGN: the house)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PURE = ("config", "geometry", "ops", "models", "losses", "diffusion")
RUN_LIBRARIES = {"deepspeed", "torch.distributed", "wandb", "webdataset"}


def imported(path: Path) -> set[str]:
    """Every module that a file names, at the top or inside a function, with all its parents."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.distributed"):
            found.add("torch.distributed")
    return {name.rsplit(".", cut)[0] for name in found for cut in range(name.count(".") + 1)}


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("package", PURE)
def test_the_mathematics_knows_nothing_of_the_run(package: str) -> None:
    for path in files(f"coordtok/{package}"):
        forbidden = {*RUN_LIBRARIES, "coordtok.train", "coordtok.data", "coordtok.distributed"}
        assert not imported(path) & forbidden, path


def test_one_file_names_torch_distributed_and_one_package_deepspeed() -> None:
    for path in [*files("coordtok"), *files("data_prep"), *files("scripts")]:
        names = imported(path)
        if path != ROOT / "coordtok/distributed.py":
            assert "torch.distributed" not in names, path
        if not path.is_relative_to(ROOT / "coordtok/train"):
            assert "deepspeed" not in names, path


def test_train_calls_evaluation_and_never_the_other_way() -> None:
    for path in files("coordtok/evaluation"):
        assert "coordtok.train" not in imported(path), path


def test_data_prep_stands_on_the_shards_rooms_alone() -> None:
    for path in files("data_prep"):
        own = {name for name in imported(path) if name.startswith("coordtok.")}
        assert {".".join(name.split(".")[:2]) for name in own} <= {
            "coordtok.cli",
            "coordtok.config",
            "coordtok.data",
            "coordtok.errors",
            "coordtok.storage",
            "coordtok.video",
        }


@pytest.mark.parametrize("package", ["config", "scaling"])
def test_planning_files_never_name_torch(package: str) -> None:
    for path in files(f"coordtok/{package}"):
        assert "torch" not in imported(path), path


@pytest.mark.parametrize("module", ["coordtok", "coordtok.config.load", "data_prep.build_shards"])
def test_planning_and_data_preparation_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_importing_the_library_changes_nothing_outside_it() -> None:
    code = (
        "import os, signal; before = dict(os.environ), signal.getsignal(signal.SIGTERM);"
        "import coordtok.models.tokenizer, coordtok.data.loader;"
        "assert before == (dict(os.environ), signal.getsignal(signal.SIGTERM))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
