"""Rank, world size and the few collectives of the project: the only file that names
`torch.distributed`.

Before `setup`, and without a launcher, a process is rank 0 of 1 and every collective is the
identity, so that a script under plain `python` is the same code.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from coordtok.errors import UserError, for_user, one_line

T = TypeVar("T")

TIMEOUT = timedelta(minutes=60)
"""Longest wait in a collective: saving a large model to slow storage takes minutes."""

_POLL_SECONDS = 0.05


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", 0))


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    return rank() == 0


def device() -> torch.device:
    """This rank's device: its GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def setup() -> None:
    """Join the process group that the launcher describes, or a group of one without a launcher.

    Raises:
        UserError: it cannot be joined.
    """
    if dist.is_initialized():
        return
    meeting: dict[str, Any] = {}
    if "RANK" not in os.environ:
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ.update(alone, MASTER_PORT=str(_free_port()))
        meeting = {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    if device().type == "cuda":
        torch.cuda.set_device(device())
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores_per_rank())
    backend = "cpu:gloo,cuda:nccl" if device().type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT, **meeting)
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(
            f"the ranks cannot meet at {address} ({one_line(error).split('. ')[0]}): check the "
            "launcher's address and port, and the limit on open files (ulimit -n)"
        ) from None


def cores_per_rank() -> int:
    """This rank's share of the cores, by the launcher's number of ranks on this machine."""
    return max(1, len(os.sched_getaffinity(0)) // local_ranks())


def local_ranks() -> int:
    """Ranks on this machine, as the launcher says."""
    return int(os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or 1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def barrier() -> None:
    """Every rank waits here for every other."""
    if world_size() > 1:
        gather(None)


def gather(value: T) -> list[T]:
    """`value` of every rank, in rank order, on every rank. It travels pickled: keep it small."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast(value: T) -> T:
    """Rank 0's `value` on every rank."""
    if world_size() == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def broadcast_tensor(value: torch.Tensor | None, shape: torch.Size) -> torch.Tensor:
    """Rank 0's fp32 tensor of `shape` on every rank's device; only rank 0's `value` is read."""
    if is_main():
        assert value is not None
        buffer = value.to(device(), torch.float32).contiguous()
    else:
        buffer = torch.empty(shape, device=device())
    if world_size() > 1:
        dist.broadcast(buffer, src=0)
    return buffer


def sum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """The sum of every rank's tensor, on every rank."""
    if world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
    return value


def sum_each_on(values: Sequence[torch.Tensor], owners: Sequence[int]) -> None:
    """Add every rank's tensors up, each in place on the rank that `owners` names for it; what the
    other ranks' tensors hold after that is undefined."""
    if world_size() > 1:
        _wait(dist.reduce(value, owner, async_op=True) for value, owner in zip(values, owners))


def broadcast_each_from(values: Sequence[torch.Tensor], owners: Sequence[int]) -> None:
    """Each tensor, in place, as the rank has it that `owners` names for it."""
    if world_size() > 1:
        _wait(dist.broadcast(value, owner, async_op=True) for value, owner in zip(values, owners))


def _wait(started: Iterable[Any]) -> None:
    for work in list(started):
        work.wait()


def tell(topic: str, text: str) -> None:
    """Leave `text` for rank 0 to `hear`. No collective: a thread may call it while others run."""
    _store().set(f"{topic}/{rank()}", text)


def hear(topic: str) -> list[str]:
    """What every rank tells about `topic`, in rank order, once all have; each topic is heard once.
    No collective either.

    Raises:
        TimeoutError: a rank has kept silent for `TIMEOUT`.
    """
    keys = [f"{topic}/{number}" for number in range(world_size())]
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while not _store().check(keys):
        if time.monotonic() > deadline:
            raise TimeoutError(f"a rank has not answered within {TIMEOUT}")
        time.sleep(_POLL_SECONDS)
    heard = [_store().get(key).decode() for key in keys]
    for key in keys:
        _store().delete_key(key)
    return heard


def _store() -> dist.Store:
    """The one in which the ranks found each other."""
    return dist.distributed_c10d._get_default_store()


def raise_together(error: UserError | None) -> None:
    """Raise on every rank the error of the first rank that has one, so that none waits for it."""
    for found in gather(error):
        if found is not None:
            found.shared = True
            raise found


def together(action: Callable[[], T]) -> T:
    """This rank's `action()`, unless a `UserError` on any rank, or what the operating system
    refused there, is raised on all of them."""
    result, error = None, None
    try:
        result = action()
    except Exception as caught:
        error = for_user(caught)
        if error is None:
            raise
    raise_together(error)
    return cast(T, result)


def run_on_main(action: Callable[[], T]) -> T:
    """The result of `action()` on rank 0, for every rank; so with a `UserError` of it."""
    return broadcast(together(lambda: cast(T, action() if is_main() else None)))
