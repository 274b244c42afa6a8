"""The time of collectives in a trace of torch's profiler.

Collectives run beside other work, so their times are not simply added: what counts is how long at
least one of them was under way.
"""

from collections.abc import Callable, Iterable

import torch
from torch.profiler import ProfilerActivity, profile


def traced_collective_seconds(action: Callable[[], object]) -> float:
    """Seconds of `action` in which this rank was in a collective: a kernel of NCCL on a GPU, an
    operation of Gloo from its start to its end otherwise."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as trace:
        action()
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in trace.events() or ()
        if _is_collective(event.name, str(event.device_type))
    ]
    return covered(spans) / 1e6


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of (start, end) intervals."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length


def _is_collective(name: str, device_type: str) -> bool:
    if device_type.endswith("CUDA"):
        return name.lower().startswith("nccl")
    return name.startswith("gloo:")
