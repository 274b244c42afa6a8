"""Where the time of a step goes: methods of its parts that count as a phase of it."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch


class Clock:
    """Seconds of each phase of the present step; the device's work is waited for.

    by_events: on a GPU it is not waited for, and a phase's seconds are those in which it was next
    on the device's stream: of what runs on the host, such as reading, what the device stood still
    for.
    """

    def __init__(self, phases: Sequence[str], by_events: bool = False) -> None:
        self._phases = phases
        self._by_events = by_events and torch.cuda.is_available()
        self._spans: list[tuple[str, Any, Any]] = []

    def timed(self, phase: str, action: Callable[..., Any]) -> Callable[..., Any]:
        """`action`, whose time counts as `phase`."""

        def run(*args: Any, **kwargs: Any) -> Any:
            began = self._mark()
            try:
                return action(*args, **kwargs)
            finally:
                self._spans.append((phase, began, self._mark()))

        return run

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by phase."""
        self.now()
        seconds = dict.fromkeys(self._phases, 0.0)
        for phase, began, ended in self._spans:
            seconds[phase] += began.elapsed_time(ended) / 1e3 if self._by_events else ended - began
        self._spans = []
        return seconds

    def now(self) -> float:
        """Seconds, once the device has done all it was given."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    def _mark(self) -> Any:
        if not self._by_events:
            return self.now()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Timed:
    """Stands for an object, some of whose methods count as a phase."""

    def __init__(self, target: Any, clock: Clock, phases: Mapping[str, str]) -> None:
        self._target, self._clock, self._phases = target, clock, phases

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return self._clock.timed(self._phases[name], value) if name in self._phases else value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._target(*args, **kwargs)
