"""README and docs/ are true: their commands parse, and what they name and link exists."""

import ast
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from coordtok import CoordTok, save_video
from coordtok.config.load import load_config
from coordtok.config.sharding import sharding_json
from coordtok.pretrained.card import Card, Origin, TokenizerSettings
from coordtok.pretrained.write import write_export
from data_prep import options, verify_shards
from tests.support.tiny import TINY

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text()
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
COMMANDS_MODULE = "coordtok.commands."
FOLDERS = ("coordtok", "data_prep", "ds_configs", "scripts", "tests", "docs")


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip()]


def examples(script: Path) -> list[str]:
    """The commands that --help shows."""
    text = (ast.get_docstring(ast.parse(script.read_text())) or "").replace("\\\n", " ")
    return re.findall(r"^    ((?:python|deepspeed|torchrun) .*)", text, re.MULTILINE)


COMMANDS = [
    pytest.param(command, id=f"{name}: {' '.join(command.split())}")
    for name, found in [
        *((page, commands(text)) for page, text in PAGES.items()),
        *((path.name, examples(path)) for path in sorted((ROOT / "scripts").glob("*.py"))),
    ]
    for command in found
]


def test_the_readme_is_short_and_begins_with_a_command() -> None:
    assert len(README.splitlines()) < 200
    assert "make train" in commands(README)[0]


def test_the_readme_links_every_page() -> None:
    assert set(re.findall(r"\]\((docs/\w+\.md)\)", README)) == PAGES.keys() - {"README.md"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:])
    elif words[:3] == ["python", "-m", "data_prep.build_shards"]:
        options.parse(words[3:])
    elif words[:3] == ["python", "-m", "data_prep.verify_shards"]:
        verify_shards.parser().parse_args(words[3:])
    else:
        named = next(word for word in words if word.startswith(("scripts/", COMMANDS_MODULE)))
        script = script_of(named)
        assert words[0] in ("deepspeed", "torchrun", "python")
        assert (ROOT / script).is_file()
        arguments = words[words.index(named) + 1 :]
        monkeypatch.setattr("sys.argv", [script, *arguments])
        runpy.run_path(str(ROOT / script))["parse_args"]()
        if script == "scripts/train.py":
            check_training(arguments)


def script_of(named: str) -> str:
    """The script of a path, or of the module that it is in an installed package."""
    if named.startswith(COMMANDS_MODULE):
        return f"scripts/{named.removeprefix(COMMANDS_MODULE)}.py"
    return named


def check_training(words: list[str]) -> None:
    assert (ROOT / sharding_json(words[words.index("--deepspeed") + 1])).is_file()
    preset = words[words.index("--config") + 1] if "--config" in words else "quickstart"
    load_config(preset, [word for word in words if "=" in word])


def test_the_python_examples_run(
    tmp_path: Path, write_clip_shards: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the README, then those of docs/python.md, one after the other."""
    export, config = tmp_path / "exports/quickstart", replace(TINY, frames=16)
    export.parent.mkdir()
    weights = CoordTok(config).state_dict()
    write_export(export, Card(config, TokenizerSettings(), Origin("raw")), weights)
    save_video(tmp_path / "film.mp4", torch.zeros(20, 32, 32, 3))
    write_clip_shards(tmp_path / "shards/quickstart/train")
    monkeypatch.chdir(tmp_path)
    commit = SimpleNamespace(commit_url="")
    api = SimpleNamespace(create_repo=lambda *_, **__: None, upload_folder=lambda **_: commit)
    hub = SimpleNamespace(HfApi=lambda: api, snapshot_download=lambda *_, **__: export)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    index_BN3 = torch.zeros(1, 2, 3, dtype=torch.long)
    video = torch.zeros(1, *config.video_size, 3, dtype=torch.uint8)
    names: dict[str, Any] = {"video": video, "index_BN3": index_BN3}
    for block in [*python(README), *python(PAGES["docs/python.md"])]:
        exec(block, names)
    assert names["few"].shape == (1, 2, *video.shape[2:])
    assert names["video"].shape[1:] == video.shape[1:]


def python(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_files_presets_and_links_exist(page: str) -> None:
    for name in re.findall(r"`(ds_configs/\S+|scripts/\w+\.py|[\w/]+/)`", PAGES[page]):
        if name.startswith(FOLDERS):
            assert (ROOT / name).exists(), name
    for preset in re.findall(r"`((?:tokenizer_|dit_)\w+|quickstart)`", PAGES[page]):
        load_config(preset)
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", PAGES[page]):
        assert ((ROOT / page).parent / link).exists(), link


def test_the_layout_is_the_tree() -> None:
    block = README.split("## Layout\n\n```\n")[1].split("```")[0]
    shown = re.findall(r"^ *(\S+)", block, re.MULTILINE)
    rooms = [
        path.name + "/" * path.is_dir()
        for path in (ROOT / "coordtok").iterdir()
        if not path.name.startswith("__")
    ]
    assert sorted(shown) == sorted([*rooms, *(f"{folder}/" for folder in FOLDERS)])


def test_the_way_of_a_patch_names_modules_and_functions() -> None:
    way = README.split("One patch, from disk to loss: ")[1].split("\n\n")[0]
    for name in re.findall(r"`([\w.]+)`", way):
        path = name if name.startswith("data_prep.") else f"coordtok.{name}"
        parent, _, last = path.rpartition(".")
        assert is_module(path) or (is_module(parent) and last in functions(file_of(parent))), name


def file_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


def is_module(module: str) -> bool:
    return file_of(module).is_file() or file_of(module).with_suffix("").is_dir()


@cache
def functions(path: Path) -> dict[str, ast.FunctionDef]:
    body = ast.parse(path.read_text()).body
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def test_what_the_code_cites_is_there() -> None:
    """A page by its name, a section by the page, a comma and its title in quotes."""
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*")):
        if path.suffix not in (".py", ".yaml", ".md"):
            continue
        for page, title in re.findall(r'(docs/\w+\.md)(?:,\s+"([^"]+)")?', path.read_text()):
            assert page in PAGES, f"{path} cites {page}"
            assert not title or f"\n## {title}\n" in PAGES[page], f"{path} cites {page}, {title}"


GUARANTEES = re.findall(
    r"^\| .+ \| `(tests/\S+\.py)::(\w+)` \| (.+) \|$", PAGES["docs/guarantees.md"], re.MULTILINE
)


def test_every_guarantee_names_a_test() -> None:
    rows = re.findall(r"^\|(?! guarantee |---)", PAGES["docs/guarantees.md"], re.MULTILINE)
    assert len(GUARANTEES) == len(rows) > 20


@pytest.mark.parametrize(("file", "test", "tiers"), GUARANTEES)
def test_a_guarantee_has_its_test_in_its_tier(file: str, test: str, tiers: str) -> None:
    """Of several tiers the first is that of the test itself, the others are of some cases."""
    assert test in functions(ROOT / file)
    marks = {ast.unparse(mark) for mark in functions(ROOT / file)[test].decorator_list}
    assert tiers.split(", ")[0] == ("slow" if "pytest.mark.slow" in marks else "default")
