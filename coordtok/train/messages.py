"""What DeepSpeed's comms logger counts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from deepspeed.comm import comm


@contextmanager
def logged_messages() -> Iterator[Mapping[str, Mapping[int, Sequence[Any]]]]:
    """A record of DeepSpeed's collectives within the block, complete at its end: by operation, for
    each number of bytes that this rank handed in how often, first in a list."""
    logger = comm.comms_logger
    before = logger.enabled, logger.prof_all, logger.comms_dict
    logged: dict[str, dict[int, list[Any]]] = {}
    logger.enabled, logger.prof_all, logger.comms_dict = True, True, logged
    try:
        yield logged
    finally:
        logger.enabled, logger.prof_all, logger.comms_dict = before
