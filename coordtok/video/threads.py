"""Several things at a time, in the order they came."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(
    function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int | None = None
) -> Iterator[R]:
    """`function` of every item, in their order, by `threads` at a time.

    Args:
        ahead: how many items may be in work or wait for their turn; by default two a thread.
    """
    if threads == 1:
        yield from map(function, items)
        return
    most = 2 * threads if ahead is None else ahead
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) == most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
