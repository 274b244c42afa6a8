"""Reads a series of items ahead of their use, in processes of its own, without changing it.

Item j of the series is read by worker j mod n and handed over in order. It is torch's DataLoader
underneath (tensors travel through shared memory, a worker keeps to one thread and ends by itself
when its parent is gone), with two differences. Workers take no part in signals: those go to a whole
process group, and the training process must be able to finish its step and save. And what is wrong
with the data arrives as the one-line error it is, not as another process's traceback.
"""

import atexit
import signal
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from coordtok.config.errors import DataError, UserError, one_line

Series = Callable[[int, int], Iterator[Any]]
"""(i, n) -> the items i, i + n, i + 2n ... of a series"""

_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def read_ahead(series: Series, *, workers: int, prefetch: int) -> Iterator[Any]:
    """The items of `series` in order.

    Args:
        workers: processes; 0 reads each item when it is asked for, in this process.
        prefetch: items that each worker reads ahead.

    Raises:
        UserError: as reading raised it.
        DataError: a worker was killed.
    """
    if workers == 0:
        return series(0, 1)
    items = _from_workers(series, workers, prefetch)
    atexit.register(_close, weakref.ref(items))  # before multiprocessing waits for its children
    return items


class _WorkerItems(IterableDataset):
    """A worker's own items; an error a user can put right is the last of them."""

    def __init__(self, series: Series) -> None:
        self._series = series

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        assert worker is not None
        try:
            yield from self._series(worker.id, worker.num_workers)
        except UserError as error:
            yield error


def _from_workers(series: Series, workers: int, prefetch: int) -> Generator[Any]:
    items: Any = iter(
        DataLoader(
            _WorkerItems(series),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=prefetch,
            collate_fn=_as_it_is,
            worker_init_fn=_ignore_signals,
            multiprocessing_context="fork",  # a spawned worker would import and index all anew
            generator=torch.Generator(),  # or it would draw from torch's global one
        )
    )
    try:
        while (item := _next(items)) is not None:
            if isinstance(item, UserError):
                raise item
            yield item
    finally:
        _end(items)


def _next(items: Iterator[Any]) -> Any:
    try:
        return next(items, None)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"a loader process was killed ({one_line(error)}); if memory or /dev/shm ran out, "
            "lower data.workers or data.prefetch"
        ) from None


def _end(items: Any) -> None:
    """End the workers now: torch only does when the iterator is collected, which may be late, and
    it waits for ever for one that is stuck, in a dead network say, and ignores its SIGTERM."""
    items._shutdown_workers()
    for process in items._workers:
        if process.is_alive():
            process.kill()


def _close(items: "weakref.ref[Generator[Any]]") -> None:
    if (alive := items()) is not None:
        alive.close()


def _ignore_signals(worker: int) -> None:
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(item: Any) -> Any:
    return item
