"""The most memory that was held at once: by tensors on a GPU, elsewhere by the whole process."""

import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset_peak(device: torch.device) -> None:
    """Count from here on. A process counts from its start where the system is not Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        _RESET.write_text("5")  # its high-water mark of resident memory: man 5 proc


def peak_bytes(device: torch.device) -> int:
    """Most bytes since the last reset: tensors on a GPU, else the resident memory of the process
    with its libraries."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _host_bytes()


def peaks(device: torch.device) -> dict[str, float]:
    """For logs, in GiB: the resident memory of the process, without those it started, and what a
    GPU's tensors and their allocator held."""
    found = {"host_peak_gib": _host_bytes()}
    if device.type == "cuda":
        found["gpu_peak_allocated_gib"] = torch.cuda.max_memory_allocated(device)
        found["gpu_peak_reserved_gib"] = torch.cuda.max_memory_reserved(device)
    return {name: size / 2**30 for name, size in found.items()}


def _host_bytes() -> int:
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        if found is not None:
            return 1024 * int(found[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_kind(device: torch.device) -> str:
    """Whose memory it is, for tables."""
    return "GPU" if device.type == "cuda" else "process"
