"""Time spent training: validation and saving are left out of rates and totals."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Lap(NamedTuple):
    seconds: float
    steps: int


class Clock:
    """Runs from its making, `before` seconds of earlier training included."""

    def __init__(self, before: float) -> None:
        self._start = time.perf_counter() - before
        self._lap_start = time.perf_counter()
        self._steps = 0

    def total(self) -> float:
        return time.perf_counter() - self._start

    def step(self) -> float:
        """Count a step; the mean seconds a step took since the last lap."""
        self._steps += 1
        return (time.perf_counter() - self._lap_start) / self._steps

    def lap(self) -> Lap:
        """Seconds and steps since the last lap, and begin the next one."""
        now = time.perf_counter()
        lap = Lap(now - self._lap_start, self._steps)
        self._lap_start, self._steps = now, 0
        return lap

    @contextmanager
    def paused(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        pause = time.perf_counter() - began
        self._start += pause
        self._lap_start += pause
