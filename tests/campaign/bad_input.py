"""Give every command that reads files what it should not be given, and see how it ends:

    python -m tests.campaign.bad_input --seed 0 --count 2000
    python -m tests.campaign.bad_input --seed 0 --count 200 --only encode
    python -m tests.campaign.bad_input --seed 0 --case 17

A case is a command on real input (tests/campaign/good_input.py) and one thing that is wrong: a
damaged file, an odd option or key, something else than a file, a server that lies, a full disk. It
should finish, with what cannot be read skipped and counted, or end with one line and exit code 2.
Ends with 1 if any case does otherwise: a traceback, more than a minute, more than 4 GB, a signal.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from tqdm import tqdm

from tests.campaign.cases import SETUPS, UNHARMED, Case, numbers, prepare
from tests.campaign.conditions import command
from tests.campaign.good_input import GoodInputs, environment
from tests.support.ranks import ROOT
from tests.support.warm_python import WarmProcess, WarmPython

HANG_S = 60
MOST_BYTES = 4 << 30
GOOD = ("finished", "skipped", "refused")
BAD = ("traceback", "hang", "memory", "signal", "left", "other")
_POLL_S = 0.1
_LEFT_S = 2.0
"""How long a process may outlive the command that started it."""
_SHOWN = 20_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Outcome:
    """How a case ended: one of GOOD or BAD, and a line of what it said."""

    case: Case
    result: str
    said: str
    seconds: float
    printed: str
    """All of it."""

    def __str__(self) -> str:
        case = self.case
        return (
            f"{self.result}: --case {case.number} {case.setup.name}, {case.kind}: {case.detail}\n"
            f"    {self.said[:300]}"
        )


class Running:
    """A case that has been started. It prints into pipes, which no limit of a disk holds for."""

    def __init__(self, case: Case, python: WarmPython, home: Path, hang_s: float) -> None:
        self.case, self._hang_s = case, hang_s
        self._readers, writers = zip(_pipe(), _pipe())
        self._printed = ["", ""]
        self._process: WarmProcess = python.start(
            command(case.conditions, case.words), case.folder, environment(home), *writers
        )
        for writer in writers:
            writer.close()
        self._start = time.monotonic()
        self._ended: float | None = None
        self._most_bytes = 0

    def poll(self, sessions: dict[int, int]) -> Outcome | None:
        """How it ended, if it has. `sessions`: resident bytes of each session of processes."""
        now = time.monotonic()
        code = self._process.poll()
        self._read()
        self._most_bytes = max(self._most_bytes, sessions.get(self._process.pid, 0))
        if self._most_bytes > MOST_BYTES:
            return self._outcome("memory", f"{self._most_bytes >> 20} MB")
        if code is None:
            too_long = now - self._start > self._hang_s
            return self._outcome("hang", "".join(self._printed)[-200:]) if too_long else None
        self._ended = self._ended or now
        if self._process.pid in sessions:
            if now - self._ended < _LEFT_S:
                return None
            return self._outcome("left", "processes that it started live on")
        result, said = _judged(code, *self._printed)
        if self.case.number in UNHARMED and result != "finished":
            return self._outcome("other", f"although nothing is wrong: {said}")
        return self._outcome(result, said)

    def close(self) -> None:
        _end_session(self._process.pid)
        self._process.wait()
        for reader in self._readers:
            reader.close()

    def _read(self) -> None:
        """What was printed; of very much, the beginning and the end."""
        for number, reader in enumerate(self._readers):
            while data := reader.read(1 << 16):
                printed = self._printed[number] + data.decode(errors="replace")
                self._printed[number] = printed[:_SHOWN] + printed[_SHOWN:][-_SHOWN:]

    def _outcome(self, result: str, said: str) -> Outcome:
        seconds = time.monotonic() - self._start
        return Outcome(self.case, result, said, seconds, "".join(self._printed))


def _pipe() -> tuple[IO[bytes], IO[str]]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    return os.fdopen(reader, "rb", 0), os.fdopen(writer, "w")


def _judged(code: int, stdout: str, stderr: str) -> tuple[str, str]:
    """A result and a line, from an exit code and what was printed."""
    output = stdout + stderr
    last = output.strip().splitlines()[-1:] or [""]
    if code < 0:
        return "signal", f"{signal.Signals(-code).name}: {last[0]}"
    if "Traceback (most recent call last)" in output:
        return "traceback", last[0]
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    if code == 2 and len(errors) == 1:
        return "refused", errors[0]
    if code in (0, 1) and not errors:
        skipped = re.search(r"skipped|problem: |failures\.jsonl|cannot be used", output)
        return "skipped" if skipped else "finished", last[0]
    return "other", f"exit code {code} and {len(errors)} error lines: {last[0]}"


def _sessions() -> dict[int, int]:
    """Resident bytes of all processes of each session, those that have ended left out."""
    found: Counter[int] = Counter()
    for name in filter(str.isdigit, os.listdir("/proc")):
        if (status := _status(name)) is not None:
            found[status[0]] += status[1]
    return found


def _status(pid: str) -> tuple[int, int] | None:
    """Session and resident bytes of a process; None of one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else (int(fields[3]), int(fields[21]) * _PAGE)


def _end_session(session: int) -> None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if (status := _status(pid)) is not None and status[0] == session:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue


def outcomes(
    cases: Iterable[int],
    seed: int,
    good: GoodInputs,
    python: WarmPython,
    jobs: int,
    hang_s: float = HANG_S,
) -> Iterator[Outcome]:
    """Run cases, `jobs` at a time, each in a folder of its own beside the good inputs."""
    folder = good.folder.parent
    waiting, running = iter(cases), []
    while True:
        for number in islice(waiting, jobs - len(running)):
            case = prepare(seed, number, good, folder / str(number))
            running.append(Running(case, python, folder, hang_s))
        if not running:
            return
        time.sleep(_POLL_S)
        sessions = _sessions()
        for each in list(running):
            if (outcome := each.poll(sessions)) is not None:
                running.remove(each)
                each.close()
                each.case.close()
                yield outcome


def table(found: list[Outcome], of: Callable[[Outcome], str]) -> str:
    """Counts of results, a row for each class."""
    counts: dict[str, Counter[str]] = {}
    for outcome in found:
        counts.setdefault(of(outcome), Counter())[outcome.result] += 1
    columns = (*GOOD, *(name for name in BAD if any(row[name] for row in counts.values())))
    rows = [("", *columns)]
    rows += [(name, *(str(row[each]) for each in columns)) for name, row in sorted(counts.items())]
    total = Counter(outcome.result for outcome in found)
    rows.append(("all", *(str(total[each]) for each in columns)))
    width = max(len(row[0]) for row in rows)
    return "\n".join(
        row[0].ljust(width) + "".join(f"{each:>10}" for each in row[1:]) for row in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = sorted({setup.command for setup in SETUPS})
    parser.add_argument("--count", type=int, default=2000, help="cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (default: %(default)s)")
    parser.add_argument("--only", choices=commands, metavar="COMMAND", help=", ".join(commands))
    parser.add_argument("--case", type=int, help="run this one alone and show what it prints")
    parser.add_argument(
        "--jobs",
        type=int,
        default=2 * (os.cpu_count() or 1),
        help="cases at a time; some only wait (default: %(default)s)",
    )
    parser.add_argument(
        "--hang",
        type=float,
        metavar="SECONDS",
        default=HANG_S,
        help="what ends later hangs; more on a busy machine (default: %(default)s)",
    )
    args = parser.parse_args()
    cases = [args.case] if args.case is not None else numbers(args.only, args.count)
    python, found = WarmPython(ROOT), []
    with tempfile.TemporaryDirectory() as folder:
        good = GoodInputs(Path(folder) / "good", python)
        ended = outcomes(cases, args.seed, good, python, args.jobs, args.hang)
        with suppress(KeyboardInterrupt):  # the table is of those that ended
            for outcome in tqdm(ended, total=len(cases), unit=" cases", mininterval=5):
                found.append(outcome)
                if args.case is not None:
                    tqdm.write(outcome.printed)
                if outcome.result in BAD or args.case is not None:
                    tqdm.write(str(outcome))
    print(table(found, lambda outcome: outcome.case.setup.command))
    print()
    print(table(found, lambda outcome: outcome.case.kind))
    for slowest in sorted(found, key=lambda outcome: -outcome.seconds)[:1]:
        print(f"\nslowest: {slowest.seconds:.0f} s, {slowest}")
    bad = sum(outcome.result in BAD for outcome in found)
    print(f"\n{len(found)} cases, seed {args.seed}: {bad} end as they should not")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
