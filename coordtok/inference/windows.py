"""A video in windows of as many frames as a model takes, read once and in order.

The last window may be shorter. Windows without a wanted time are read past and not kept. Where
times between frames are wanted, a window begins with the last frame of the one before, so that
each time has both its neighbours in one window.

Shapes: T frames of a window, H rows, W columns, 3 colours.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

import numpy as np

from coordtok.errors import DataError
from coordtok.inference.frame_range import FrameRange
from coordtok.inference.tiling import Film
from coordtok.video.codec import UnreadableVideo
from coordtok.video.source import Picture, SourceVideo


class Window(NamedTuple):
    first: int
    film: Film
    """(T, H, W, 3); anything beyond the real frames."""
    real: int
    fresh: int
    """Real frames that the window before does not hold."""
    times: tuple[Fraction, ...]
    """Wanted ones, those up to the last frame of the window before left out."""


def windows(
    video: SourceVideo,
    wanted: FrameRange,
    length: int,
    prepare: Callable[[Picture], Picture],
    on_read: Callable[[], object],
) -> Iterator[Window]:
    """The windows that may hold wanted frames, read no further than the last of them."""
    with naming(video.path):
        reel = _Reel(_counted(video, on_read), _overlap(wanted))
        first, unseen = 0, Fraction(0)
        while not wanted.ends_by(unseen):
            part = reel.window(length)
            if wanted.within(unseen, first + length):
                film, read = _fill(first, map(prepare, part), length)
                fresh = read - (_overlap(wanted) if first else 0)
                times = tuple(map(wanted.time, wanted.within(unseen, first + read)))
                yield Window(first, film, read, fresh, times)
            else:
                read = sum(1 for _ in part)
            if read < length:
                wanted.check(first + read)
                return
            unseen = first + length - 1 + wanted.tick
            first += length - _overlap(wanted)


class _Reel:
    """Pictures in windows that share `overlap` (0 or 1) pictures with the one before."""

    def __init__(self, pictures: Iterator[Picture], overlap: int) -> None:
        self._pictures = pictures
        self._last: deque[Picture] = deque(maxlen=overlap)

    def window(self, length: int) -> Iterator[Picture]:
        """At most `length` pictures; to be read to its end before the next."""
        shared = tuple(self._last)
        yield from shared
        for picture in islice(self._pictures, length - len(shared)):
            self._last.append(picture)
            yield picture


def _counted(video: SourceVideo, on_read: Callable[[], object]) -> Iterator[Picture]:
    for picture in video.frames():
        on_read()
        yield picture


def _fill(first: int, pictures: Iterator[Picture], length: int) -> tuple[Film, int]:
    """A window (length, H, W, 3) that begins with the pictures, and how many they are."""
    film, real = np.empty((length, 0, 0, 3), np.uint8), 0
    for picture in pictures:
        if not real:
            film = _room(length, picture)
        if picture.shape != film.shape[1:]:
            raise DataError(
                f"the video's size changes at frame {first + real}; tiles need one size: crop it"
            )
        film[real] = picture
        real += 1
    return film, real


def _room(length: int, picture: Picture) -> Film:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 2 * length * picture.nbytes > memory:  # the system hands out more than it has
        raise MemoryError
    return np.zeros((length, *picture.shape), np.uint8)


def frames_to_read(wanted: FrameRange, length: int) -> int | None:
    """Frames up to the end of the last window of `length` with a wanted one; None: all."""
    if wanted.stop is None:
        return None
    overlap = _overlap(wanted)
    count = max(1, -(-(wanted.stop - overlap) // (length - overlap)))
    return count * (length - overlap) + overlap


def _overlap(wanted: FrameRange) -> int:
    """Frames that a window shares with the one before."""
    return int(wanted.tick != 1)


@contextmanager
def naming(video: object) -> Iterator[None]:
    """Errors of reading say which video it was."""
    try:
        yield
    except UnreadableVideo as error:
        raise DataError(f"{video}: {error}; name a video that plays to its end") from None
    except MemoryError:
        raise DataError(
            f"{video}: its frames do not fit into memory; crop it to the model's size, not tile "
            "it, or scale it down first"
        ) from None
