"""Reads a series of items ahead of their use, in processes of its own, without changing it.

Item j of the series is read by worker j mod n and handed over in order. It is torch's DataLoader
underneath (a worker keeps to one thread), with four differences. Arrays travel through memory that
is shared once and used again and again: mapping a new piece for each clip costs several times what
copying it does. Workers take no part in signals: those go to a whole process group, and the
training process must be able to finish its step and save. They have ended when the process that
started them ends, and end with it where it is killed. And what is wrong with the data arrives as
the one-line error it is, not as a traceback.
"""

import gc
import mmap
import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from torch.utils.data._utils import signal_handling
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from coordtok.data.sample import Item
from coordtok.endings import before_exit
from coordtok.errors import DataError, UserError, for_user, one_line

Series = Callable[[int, int], Iterator[Item]]
"""(i, n) -> the items i, i + n, i + 2n ... of a series"""

_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_PATIENCE_S = 1.0
"""For workers that have been told to end: one may be stuck, in a dead network say."""
_POLL_S = 0.2
_running: "weakref.WeakSet[Generator[Item, None, None]]" = weakref.WeakSet()


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
    _running.add(items)
    return items


@before_exit
def _end_all() -> None:
    """For those that something still holds, a traceback say."""
    for items in list(_running):
        items.close()


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


class _Workers(_MultiProcessingDataLoaderIter):
    """The processes of a loader, and the queues from and to them."""

    _shutdown = True
    """Whether there is nothing that torch's __del__ need do: of one that could not be made, too."""

    def __init__(self, loader: "DataLoader[Any]") -> None:
        before = multiprocessing.active_children()
        try:
            super().__init__(loader)
        except BaseException:  # for want of files or room, or interrupted
            self._shutdown = True
            self._kill(set(multiprocessing.active_children()).difference(before))
            raise

    def end(self) -> None:
        """End the processes now. torch does when this is collected, which may be late, and waits
        seconds for each that is stuck, which ignores its SIGTERM."""
        try:
            if not self._shutdown:  # as torch does after the last item
                self._shutdown = True
                self._workers_done_event.set()
                for queue in self._index_queues:
                    queue.put(None)
                    queue.cancel_join_thread()
                    queue.close()
                _wait(self._workers, _PATIENCE_S)
        finally:
            self._kill(self._workers)

    def _kill(self, processes: Collection[BaseProcess]) -> None:
        with suppress(ValueError):  # not known; and torch would tell of any worker that is killed
            signal_handling._remove_worker_pids(id(self))
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _wait(processes: Collection[BaseProcess], patience_s: float) -> None:
    """Until all have ended, or for `patience_s`."""
    deadline = time.monotonic() + patience_s
    while running := [each.sentinel for each in processes if each.is_alive()]:
        if (left := deadline - time.monotonic()) <= 0:
            return
        wait(running, left)


def _from_workers(
    series: Series, slots: _Slots, workers: int, prefetch: int
) -> Generator[Item, None, None]:
    items = _Workers(
        DataLoader(
            _WorkerItems(series, slots),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=prefetch,
            collate_fn=_as_it_is,
            worker_init_fn=partial(_set_up_worker, os.getpid()),
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
        items.end()


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


def _shared(form: np.ndarray, slots: tuple[int, int]) -> np.ndarray:
    # Anonymous memory: unlike /dev/shm, which containers keep small, only the machine limits it.
    shape = (*slots, *form.shape)
    memory = mmap.mmap(-1, max(1, int(np.prod(shape)) * form.itemsize))
    return np.frombuffer(memory, form.dtype, count=int(np.prod(shape))).reshape(shape)


def _set_up_worker(parent: int, worker: int) -> None:
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    gc.freeze()  # collecting what was inherited would copy all of it, the whole index too


def _end_with(parent: int) -> None:
    """End this process soon after its parent, however that ended. torch asks only between items,
    and every five seconds."""
    while os.getppid() == parent:
        time.sleep(_POLL_S)
    os._exit(1)


def _as_it_is(item: Any) -> Any:
    return item
