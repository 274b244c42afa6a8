"""Progress bars, and in a log lines instead: what is written there stays."""

import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 30


class ProgressBar(tqdm):
    """tqdm's bar on a terminal; elsewhere a line now and then, and one at the end."""

    def __init__(self, iterable: Iterable[T] | None = None, *args: Any, **options: Any) -> None:
        self._in_lines = not (options.get("file") or sys.stderr).isatty()
        self._last_line = time.monotonic()
        if self._in_lines:
            options |= {"ncols": 0, "dynamic_ncols": False}
        super().__init__(iterable, *args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if not self._in_lines:
            super().display(msg, pos)
        elif time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._write_line()

    def clear(self, nolock: bool = False) -> None:
        if not self._in_lines:
            super().clear(nolock)

    def close(self) -> None:
        if self._in_lines and not self.disable:
            self._write_line()
            self.disable = True
            type(self)._decr_instances(self)  # type: ignore[attr-defined]
        super().close()

    def _write_line(self) -> None:
        self._last_line = time.monotonic()
        print(self, file=self.fp, flush=True)
