"""Who does the work: processes on this machine, or a Ray cluster. Neither changes what is done.

`run` takes a function and its tasks and yields what becomes of them, in any order. A worker that
dies (a decoder may crash on a damaged file, or the system may run out of memory) costs its own task
alone. Workers end with the process that started them, even if that one is killed.
"""

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Protocol

from coordtok.errors import ConfigError, UserError, for_user

Report = Callable[[int], None]
Work = Callable[[Any, Report], Any]


@dataclass(frozen=True)
class Progress:
    """Some task came forward by `amount`, in units of its own."""

    amount: int


@dataclass(frozen=True)
class Done:
    """A task ended: with a result, or its worker died of it."""

    task: Any
    result: Any = None
    crash: str | None = None


class Distributor(Protocol):
    """Runs tasks; a context manager that holds the workers."""

    def run(self, work: Work, tasks: Sequence[Any]) -> Iterator[Progress | Done]: ...

    def __enter__(self) -> "Distributor": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def make_distributor(name: str, workers: int, ray_address: str | None) -> Distributor:
    """The distributor a command line asks for."""
    return LocalProcesses(workers) if name == "local" else RayCluster(workers, ray_address)


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: Any = None


class LocalProcesses:
    """A fixed number of processes, each with a pipe, so that it is known who holds which task."""

    def __init__(self, workers: int) -> None:
        self._wanted = workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> "LocalProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []

    def run(self, work: Work, tasks: Sequence[Any]) -> Iterator[Progress | Done]:
        waiting = list(reversed(tasks))
        while len(self._workers) < min(self._wanted, len(tasks)):
            self._workers.append(_start_worker())
        for worker in self._workers:
            _hand_out(worker, work, waiting)
        while busy := {each.pipe: each for each in self._workers if each.task is not None}:
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                event = self._receive(worker)
                if isinstance(event, Done):
                    _hand_out(worker, work, waiting)
                yield event

    def _receive(self, worker: _Worker) -> Progress | Done:
        """A worker's next message; one that died is replaced."""
        task = worker.task
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, ConnectionError):
            worker.process.join()
            fresh = _start_worker()
            code = worker.process.exitcode
            worker.process, worker.pipe, worker.task = fresh.process, fresh.pipe, None
            return Done(task, crash=f"its worker died with exit code {code}")
        if kind == "progress":
            return Progress(value)
        if kind == "error":
            raise value
        worker.task = None
        return Done(task, value)


def _hand_out(worker: _Worker, work: Work, waiting: list[Any]) -> None:
    if waiting:
        worker.task = waiting.pop()
        worker.pipe.send((work, worker.task))


def _start_worker() -> _Worker:
    """A fresh interpreter: forking would copy locks of threads that do not come along.

    Ctrl-C is the parent's to handle: a worker starts, and stays, with that signal blocked.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    resource_tracker.ensure_running()  # it unblocks signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    return _Worker(process, ours)


def _serve(pipe: Connection) -> None:
    """A worker's life, which ends with its parent's."""
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(amount: int) -> None:
        pipe.send(("progress", amount))

    while True:
        try:
            work, task = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("done", work(task, report)))
        except Exception as error:
            trace = traceback.format_exc()
            pipe.send(("error", for_user(error) or RuntimeError(f"in a worker:\n{trace}")))


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


class RayCluster:
    """Tasks on a Ray cluster whose nodes share the input and output folders."""

    def __init__(self, workers: int, address: str | None) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError(
                "--distributor ray needs Ray, which is not installed: "
                "pip install 'coordtok[ray]', or use --distributor local"
            ) from None
        self._ray, self._wanted = ray, workers
        self._address = address or os.environ.get("RAY_ADDRESS")

    def __enter__(self) -> "RayCluster":
        own: dict[str, Any] = (
            {} if self._address else {"num_cpus": self._wanted, "include_dashboard": False}
        )
        try:
            self._ray.init(address=self._address, log_to_driver=False, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"no Ray cluster at {self._address or 'this machine'}: {error}"
            ) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def run(self, work: Work, tasks: Sequence[Any]) -> Iterator[Progress | Done]:
        remote = self._ray.remote(max_retries=0)(_without_progress)
        waiting = list(reversed(tasks))
        running: dict[Any, Any] = {}
        while waiting or running:
            while waiting and len(running) < self._wanted:
                task = waiting.pop()
                running[remote.remote(work, task)] = task
            for reference in self._ray.wait(list(running), num_returns=1)[0]:
                yield self._result(reference, running.pop(reference))

    def _result(self, reference: Any, task: Any) -> Done:
        try:
            return Done(task, self._ray.get(reference))
        except (self._ray.exceptions.WorkerCrashedError, self._ray.exceptions.OutOfMemoryError):
            return Done(task, crash="its Ray worker died")
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, UserError) else error from None


def _without_progress(work: Work, task: Any) -> Any:
    return work(task, lambda amount: None)
