"""What a device does at best: matrix products, memory, and the start of a kernel."""

import time
from collections.abc import Callable
from functools import partial

import torch

_ENOUGH = 0.03
"""Seconds that a probe takes at least."""


def probe(device: torch.device) -> dict[str, float]:
    """Operations a second of square products in float32 and bfloat16, bytes a second to and from
    memory, and seconds of an operation with nothing to do."""
    large = 8192 if device.type == "cuda" else 1024
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        left = torch.ones(large, large, device=device, dtype=dtype)
        out = torch.empty_like(left)
        seconds = _seconds(partial(torch.mm, left, left, out=out), device)
        found[name] = 2.0 * large**3 / seconds
    numbers = 2**28 if device.type == "cuda" else 2**25
    source = torch.ones(numbers, device=device)
    target = torch.empty_like(source)
    found["bandwidth"] = 8.0 * numbers / _seconds(lambda: target.copy_(source), device)
    one = torch.ones(1, device=device)
    found["launch"] = _seconds(lambda: one.add_(1), device)
    return found


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    """Of one call, of as many as take long enough, after one that does not count."""
    action()
    count = 1
    while True:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(count):
            action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        taken = time.perf_counter() - began
        if taken >= _ENOUGH:
            return taken / count
        count *= 4
