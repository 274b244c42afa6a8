"""Command lines of this repository, run in the test's process."""

import argparse
import runpy
import sys
from importlib import import_module
from unittest.mock import patch

from coordtok import cli
from tests.support.ranks import ROOT


def run_here(command: list[str], *arguments: str) -> int:
    """The exit code of a command's `main`: of a script, or a module by its dotted name."""
    name = command[0]
    with patch.object(sys, "argv", [*command, *arguments]):
        if name.endswith(".py"):
            return runpy.run_path(str(ROOT / name))["main"]()
        return import_module(name).main()


def parser_of(command: list[str]) -> argparse.ArgumentParser:
    """The parser that answers a command's --help."""
    parsers: list[argparse.ArgumentParser] = []
    try:
        with patch.object(cli.Parser, "print_help", lambda parser: parsers.append(parser)):
            run_here(command, "--help")
    except SystemExit:
        return parsers.pop()
    raise AssertionError(f"{command} --help does not end")
