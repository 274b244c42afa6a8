"""What a part of the check finds, written line by line, so that a part that is cut off leaves what
it had."""

import json
import math
import time
from pathlib import Path
from typing import Any


class Record:
    """Appends to a file of JSON lines: `check` lines have a verdict, others are figures."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began = time.monotonic()

    def figures(self, kind: str, /, **values: Any) -> None:
        self._write({"figures": kind, **values})

    def check(self, name: str, ok: bool, /, **values: Any) -> None:
        self._write({"check": name, "ok": bool(ok), **values})

    def near(self, name: str, found: list[float], wanted: list[float], bound: float) -> None:
        """Whether numbers agree, relative to the wanted ones."""
        pairs = zip(found, wanted, strict=True)
        most = max(abs(one - other) / max(abs(other), 1e-12) for one, other in pairs)
        is_finite = all(map(math.isfinite, found))
        self.check(name, is_finite and most <= bound, most=most, bound=bound, found=found)

    def _write(self, line: dict[str, Any]) -> None:
        line["at"] = round(time.monotonic() - self._began, 1)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line)[:400], flush=True)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What was written, but for a line that was cut off."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
