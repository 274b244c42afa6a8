"""Reads a series of items ahead of their use, in processes of its own, without changing it.

Item j of the series is read by worker j mod n and handed over in order. It is torch's DataLoader
underneath (a worker keeps to one thread, and ends by itself when its parent is gone), with three
differences. Arrays travel through memory that is shared once and used again and again: mapping a
new piece for each clip costs several times what copying it does. Workers take no part in signals:
those go to a whole process group, and the training process must be able to finish its step and
save. And what is wrong with the data arrives as the one-line error it is, not as a traceback.
"""

import atexit
import gc
import mmap
import signal
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from coordtok.data.sample import Item
from coordtok.errors import DataError, UserError, for_user, one_line

Series = Callable[[int, int], Iterator[Item]]
"""(i, n) -> the items i, i + n, i + 2n ... of a series"""

_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def read_ahead(
    series: Series, form: Mapping[str, Any], *, workers: int, prefetch: int
) -> Iterator[Item]:
    """The items of `series` in order. An item's arrays hold until the next one is asked for.

    Args:
        form: values such as every item has: their names, shapes and types.
        workers: processes; 0 reads each item when it is asked for, in this process.
        prefetch: items that each worker reads ahead.

    Raises:
        UserError: as reading raised it.
        DataError: a worker was killed.
    """
    if workers == 0:
        return series(0, 1)
    items = _from_workers(series, _Slots(form, workers, prefetch), workers, prefetch)
    atexit.register(_close, weakref.ref(items))  # before multiprocessing waits for its children
    return items


class _Slots:
    """Memory shared with forked workers, for the arrays of all items on their way.

    A worker is asked for its item t once its item t - prefetch is handed over; what takes that
    one is then done with those before it. So prefetch + 1 slots each, used in turn, are enough.
    """

    def __init__(self, form: Mapping[str, Any], workers: int, prefetch: int) -> None:
        self._per_worker = prefetch + 1
        self._arrays = {
            name: _shared(np.asarray(value), (workers, self._per_worker))
            for name, value in form.items()
            if isinstance(value, np.ndarray)
        }

    def put(self, worker: int, number: int, item: Item) -> tuple[tuple[int, int], Item]:
        """Store the arrays of a worker's item; what remains of it is small."""
        slot = (worker, number % self._per_worker)
        for name, array in self._arrays.items():
            array[slot][...] = item.values[name]
        rest = {name: value for name, value in item.values.items() if name not in self._arrays}
        return slot, replace(item, values=rest)

    def take(self, slot: tuple[int, int], item: Item) -> Item:
        """The whole item, its arrays where they lie."""
        arrays = {name: array[slot] for name, array in self._arrays.items()}
        return replace(item, values={**arrays, **item.values})


class _WorkerItems(IterableDataset):
    """A worker's own items; an error a user can put right is the last of them."""

    def __init__(self, series: Series, slots: _Slots) -> None:
        self._series, self._slots = series, slots

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        assert worker is not None
        try:
            for number, item in enumerate(self._series(worker.id, worker.num_workers)):
                yield self._slots.put(worker.id, number, item)
        except Exception as error:
            if (told := for_user(error)) is None:
                raise
            yield told


# Of one that could not be made, for want of files or room: torch's __del__ asks it, and fails.
_MultiProcessingDataLoaderIter._shutdown = True


def _from_workers(
    series: Series, slots: _Slots, workers: int, prefetch: int
) -> Generator[Item, None, None]:
    items: Any = iter(
        DataLoader(
            _WorkerItems(series, slots),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=prefetch,
            collate_fn=_as_it_is,
            worker_init_fn=_set_up_worker,
            multiprocessing_context="fork",  # a spawned worker would import and index all anew
            generator=torch.Generator(),  # or it would draw from torch's global one
        )
    )
    try:
        while (found := _next(items)) is not None:
            if isinstance(found, UserError):
                raise found
            yield slots.take(*found)
    finally:
        _end(items)


def _next(items: Iterator[Any]) -> Any:
    try:
        return next(items, None)
    except RuntimeError as error:
        # An error raised in a worker arrives as "Caught RuntimeError in DataLoader worker process".
        if "DataLoader worker (pid" not in str(error):
            raise
        raise DataError(
            f"a loader process was killed ({one_line(error)}); if memory ran out, lower "
            "data.workers or data.prefetch"
        ) from None


def _end(items: Any) -> None:
    """End the workers now: torch only does when the iterator is collected, which may be late, and
    it waits for ever for one that is stuck, in a dead network say, and ignores its SIGTERM."""
    items._shutdown_workers()
    for process in items._workers:
        if process.is_alive():
            process.kill()


def _close(items: "weakref.ref[Generator[Item, None, None]]") -> None:
    if (alive := items()) is not None:
        alive.close()


def _shared(form: np.ndarray, slots: tuple[int, int]) -> np.ndarray:
    # Anonymous memory: unlike /dev/shm, which containers keep small, only the machine limits it.
    shape = (*slots, *form.shape)
    memory = mmap.mmap(-1, max(1, int(np.prod(shape)) * form.itemsize))
    return np.frombuffer(memory, form.dtype, count=int(np.prod(shape))).reshape(shape)


def _set_up_worker(worker: int) -> None:
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()  # collecting what was inherited would copy all of it, the whole index too


def _as_it_is(item: Any) -> Any:
    return item
