"""One part of the check of a GPU in a process of its own:

python -m tests.gpu.parts PART WORK_FOLDER [--rehearse] [--compiler NAME]
"""

import argparse
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from coordtok import cli
from coordtok.train.quiet import quieten
from tests.gpu.record import Record
from tests.gpu.sizes import Sizes
from tests.support.ranks import ROOT

MARK = "@pytest.mark.gpu\n"


def _part(name: str) -> Callable[[Path, Record, Sizes], None]:
    """Imported once deepspeed is quiet."""
    from tests.gpu import correctness, kernels, restart, speed

    if name == "marked":
        return marked
    kind, _, rest = name.partition(":")
    found = {
        "prepare": correctness.prepare,
        "reference": correctness.reference,
        "sampling": correctness.sampling,
        "restart": restart.restart,
        "kernels": kernels.kernels,
    }
    if kind == "losses":
        return correctness.losses(rest)
    if kind == "full":
        return speed.full(*rest.split(":"))
    return found[kind]


def marked(work: Path, record: Record, sizes: Sizes) -> None:
    """The tests that need a GPU."""
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if MARK in path.read_text()]
    code = pytest.main(["-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)])
    record.check("tests marked gpu", code == pytest.ExitCode.OK, code=int(code))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("work", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--compiler", default="inductor")
    args = parser.parse_args()
    record = Record(args.work / f"{args.part.replace(':', '_')}.jsonl")
    try:
        quieten()
        part = _part(args.part)
        from coordtok.train import engine

        engine.COMPILER = args.compiler
        part(args.work, record, Sizes(args.rehearse))
    except BaseException as error:
        traceback.print_exc()
        record.check(f"{args.part} runs", False, error=f"{type(error).__name__}: {error}"[:600])
        return 1
    record.check(f"{args.part} runs", True)
    return 0


if __name__ == "__main__":
    cli.leave(main())
