"""What goes from the host to a GPU, beside what the GPU computes.

A copy on the stream that computes waits for all that was given to it before, and one from memory
that is not pinned makes the host wait as well.
"""

from dataclasses import replace
from functools import cache

import torch

from coordtok import distributed
from coordtok.data.loader import Batch


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On `device`, with no wait of the host: what is given to the device next waits there."""
    if device.type != "cuda" or tensor.device == device:
        return tensor.to(device, non_blocking=True)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    copies, computes = _stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copies):
        sent = pinned.to(device, non_blocking=True)
    computes.wait_stream(copies)
    sent.record_stream(computes)
    return sent


def send_batch(batch: Batch) -> Batch:
    """With its clips on this rank's device; numbers of each, which the host looks at, stay."""
    device = distributed.device()
    data = {
        name: send(each, device) if each.ndim > 1 else each for name, each in batch.data.items()
    }
    return replace(batch, data=data)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
