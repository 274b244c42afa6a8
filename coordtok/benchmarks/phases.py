"""Where the time of a step goes: methods of its parts that count as a phase of it."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


class Clock:
    """Seconds of each phase of the present step; the device's work is waited for."""

    def __init__(self, phases: Sequence[str]) -> None:
        self._phases = phases
        self._seconds = dict.fromkeys(phases, 0.0)

    def timed(self, phase: str, action: Callable[..., Any]) -> Callable[..., Any]:
        """`action`, whose time counts as `phase`."""

        def run(*args: Any, **kwargs: Any) -> Any:
            began = self.now()
            try:
                return action(*args, **kwargs)
            finally:
                self._seconds[phase] += self.now() - began

        return run

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by phase."""
        taken, self._seconds = self._seconds, dict.fromkeys(self._phases, 0.0)
        return taken

    def now(self) -> float:
        """Seconds, once the device has done all it was given."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


class Timed:
    """Stands for an object, some of whose methods count as a phase."""

    def __init__(self, target: Any, clock: Clock, phases: Mapping[str, str]) -> None:
        self._target, self._clock, self._phases = target, clock, phases

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return self._clock.timed(self._phases[name], value) if name in self._phases else value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._target(*args, **kwargs)
