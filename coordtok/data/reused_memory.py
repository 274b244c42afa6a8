"""Memory of clips that is used again.

The pages of a new array of some megabytes are made one by one as they are first written, and zeroed
before that: for a clip of raw frames this takes longer than to copy it. So whoever makes clips one
after the other keeps the memory of those that nobody looks at any more.
"""

import math
import weakref
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

_MOST_SPARE = 4
"""Pieces of one size that wait for their next use; of more, the memory is given back."""


class ReusedMemory:
    """Arrays whose memory comes from earlier ones. An array's memory is taken back when it and all
    its views are gone, tensors made of it included."""

    def __init__(self) -> None:
        self._spare: defaultdict[int, list[np.ndarray]] = defaultdict(list)

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
        """An array of any contents."""
        of = np.dtype(dtype)
        size = math.prod(shape) * of.itemsize
        spare = self._spare[size]
        memory = spare.pop() if spare else np.empty(size, np.uint8)
        # Through a buffer: a view of `memory` would leave its own views looking at `memory` itself,
        # and say nothing of how long they live.
        lent = np.frombuffer(memory.data, of) if size else np.empty(0, of)
        weakref.finalize(lent, _take_back, spare, memory).atexit = False
        return lent.reshape(shape)


def _take_back(spare: list[np.ndarray], memory: np.ndarray) -> None:
    if len(spare) < _MOST_SPARE:
        spare.append(memory)
