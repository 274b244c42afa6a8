"""Input that fails now and then, tried again with growing pauses before it counts as broken."""

import logging
import time
from collections.abc import Callable

from coordtok.errors import DataError, one_line

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.5


def retry(action: Callable[[], None], what: str, times: int) -> None:
    """Run `action`, up to `times` times again after an OSError, with growing pauses.

    Raises:
        DataError: it failed every time. `what` names in it what was being read.
    """
    for attempt in range(times + 1):
        try:
            return action()
        except OSError as error:
            reason = one_line(error)
        if attempt < times:
            logger.warning("%s: %s; trying again", what, reason)
            time.sleep(_FIRST_PAUSE_S * 2**attempt)
    raise DataError(
        f"{what} cannot be read after {times + 1} attempts: {reason}; check the disk or the "
        "network, or raise data.io_retries"
    )
