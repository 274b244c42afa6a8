"""Memory that a model needs at least, held against what there is, before any of it is taken."""

import re
from pathlib import Path

from coordtok.config.schema import RunConfig
from coordtok.errors import ConfigError
from coordtok.scaling.memory import FLOAT, Zero, rank_states
from coordtok.scaling.parameters import parameters

_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def state_bytes(run: RunConfig, ranks: int, stage: int, weight_bytes: int) -> int:
    """Of each of `ranks` under ZeRO `stage`, its weights of `weight_bytes` a number: these,
    masters, the optimiser's states, the EMA and float32 gradients.

    A lower bound of what training takes: activations and buffers come on top.
    """
    held = rank_states(run, Zero(stage, weight_bytes, bucket=0), ranks)
    owned = sum(parameters(run.model).values()) / ranks
    return int(sum(held.values()) + FLOAT * owned)


def check_memory(needed: int, what: str, fix: str) -> None:
    """Raise a ConfigError where `needed` bytes for `what` are more than this machine has free."""
    free = free_memory()
    if free is not None and needed > free:
        raise ConfigError(
            f"{what} takes at least {_gigabytes(needed)} of memory, and {_gigabytes(free)} are "
            f"free; {fix}"
        )


def free_memory() -> int | None:
    """Bytes that processes can still take, swap included; None where the system does not say."""
    try:
        found = dict(re.findall(r"^(\w+): +(\d+) kB", _MEMORY.read_text(), re.MULTILINE))
        free = 1024 * (int(found["MemAvailable"]) + int(found["SwapFree"]))
    except (OSError, KeyError):
        return None
    return min([free, *_free_in_group()])


def _free_in_group() -> list[int]:
    """What is left of a container's limit, where there is one."""
    try:
        most = int((_GROUP / "memory.max").read_text())
        taken = re.search(r"^anon (\d+)", (_GROUP / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return []
    return [most - int(taken[1])] if taken else []


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
