"""The commands that the documentation gives for launchers: these parse a script's options too, and
stop at any that is short for several of their own."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from deepspeed.launcher.runner import parse_args
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).parents[1]
PARSERS = {"deepspeed": parse_args, "torchrun": get_args_parser().parse_args}


def texts() -> dict[str, str]:
    """What newcomers read, by where it stands."""
    pages = {page.name: page.read_text() for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
    for script in ROOT.glob("scripts/*.py"):
        pages[script.name] = ast.get_docstring(ast.parse(script.read_text())) or ""
    return pages


def commands() -> list[tuple[str, str]]:
    pattern = re.compile(
        rf"^ *(({'|'.join(PARSERS)}) .*(?:scripts/|coordtok\.commands).*)$", re.MULTILINE
    )
    return [
        (place, command)
        for place, text in texts().items()
        for command, _ in pattern.findall(text.replace("\\\n", " "))
    ]


@pytest.mark.parametrize(("place", "command"), commands())
def test_launchers_understand_it(place: str, command: str) -> None:
    launcher, *arguments = shlex.split(command, comments=True)
    parsed = PARSERS[launcher](arguments)
    script = parsed.user_script if launcher == "deepspeed" else parsed.training_script
    if parsed.module:
        script = script.replace("coordtok.commands.", "scripts/") + ".py"
    assert (ROOT / script).is_file()


@pytest.mark.parametrize("script", ["sample.py", "decode.py"])
@pytest.mark.parametrize("launcher", PARSERS)
def test_a_number_can_be_given_under_a_launcher(script: str, launcher: str) -> None:
    PARSERS[launcher]([f"scripts/{script}", "-n", "2"])
