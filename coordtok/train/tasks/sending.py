"""What goes from the host to a GPU, beside what the GPU computes.

A copy on the stream that computes waits for all that was given to it before, and one from memory
that is not pinned makes the host wait as well.
"""

from dataclasses import replace
from functools import cache

import torch

from coordtok import distributed
from coordtok.data.loader import Batch
from coordtok.data.video_reader import PLANE_ROWS
from coordtok.geometry.pixels import from_planes


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
    """With its clips on this rank's device, as RGB; numbers of each, for the host, stay."""
    device = distributed.device()
    data = {
        name: send(each, device) if each.ndim > 1 else each for name, each in batch.data.items()
    }
    for name in data.keys() & PLANE_ROWS.keys():
        data["video"] = _rgb(data.pop(name), name)
    return replace(batch, data=data)


def _rgb(planes_BTRW: torch.Tensor, pixel_format: str) -> torch.Tensor:
    """The clips (B, T, H, W, 3) of stored planes, one after the other: the numbers on the way take
    a dozen times their memory."""
    rows, width = planes_BTRW.shape[2:]
    height = int(rows / PLANE_ROWS[pixel_format])
    return torch.cat([from_planes(each.flatten(2), height, width) for each in planes_BTRW.split(1)])


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
