"""Every command of the README parses as written, and names what exists."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from coordtok.config.load import load_config
from data_prep import options, verify_shards

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    line for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()
]


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) > 10
    assert "make train" in COMMANDS[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:])
    elif words[:3] == ["python", "-m", "data_prep.build_shards"]:
        options.parse(words[3:])
    elif words[:3] == ["python", "-m", "data_prep.verify_shards"]:
        verify_shards.parser().parse_args(words[3:])
    else:
        script = next(word for word in words if word.startswith("scripts/"))
        assert words[0] in ("deepspeed", "torchrun", "python")
        assert (ROOT / script).is_file()
        arguments = words[words.index(script) + 1 :]
        monkeypatch.setattr("sys.argv", [script, *arguments])
        runpy.run_path(str(ROOT / script))["parse_args"]()
        if script == "scripts/train.py":
            check_training(arguments)


def check_training(words: list[str]) -> None:
    assert (ROOT / words[words.index("--deepspeed") + 1]).is_file()
    preset = words[words.index("--config") + 1] if "--config" in words else "quickstart"
    load_config(preset, [word for word in words if "=" in word])


def test_files_and_flags_of_the_readme_exist() -> None:
    for name in re.findall(r"`(ds_configs/\S+|scripts/\w+\.py|coordtok/[\w/]+/)`", TEXT):
        assert (ROOT / name).exists(), name
    for preset in re.findall(r"`((?:tokenizer_\w+|dit_\w+|quickstart))`", TEXT):
        load_config(preset)
