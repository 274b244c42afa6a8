"""Loader processes are forks: no converter may have threads of its own when one is made."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from coordtok.video.pixel_formats import AnyToRgb
from coordtok.video.stored_planes import PlanesToRgb


def threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def test_converters_have_no_threads() -> None:
    """A fork would wait for ever for those of a converter that another thread keeps."""
    before = threads()
    size = 256, 256
    stored, any_kind = PlanesToRgb(*size, "yuv444p"), AnyToRgb(Fraction(1))
    stored([av.VideoFrame(*size, "yuv444p")] * 8, np.empty((8, *size, 3), np.uint8))
    any_kind(av.VideoFrame(*size, "yuv420p"))
    assert threads() == before
