"""Any video through a tokenizer: any length, any size, any frames of it.

A video is read once, in consecutive windows of as many frames as the model takes; the last one may
be shorter and is padded. Only one window is held at a time, so memory does not grow with the
length, and windows without a wanted frame are read past, not encoded. Where moments between frames
are wanted, a window begins with the last frame of the one before, so that each has two neighbours.

Shapes: T frames of a window, F wanted frames of it, H rows, W columns, 3 colours.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from coordtok.config.errors import CheckpointError, ConfigError, DataError
from coordtok.data.codec import UnreadableVideo
from coordtok.data.source import Picture, SourceVideo, resize_and_crop
from coordtok.evaluation.frame_range import FrameRange
from coordtok.evaluation.tiling import Film, cut, lay, tiles
from coordtok.geometry.groups import DEFAULT_GROUPING, Grouping
from coordtok.geometry.pixels import to_uint8
from coordtok.models.checks import check_between
from coordtok.models.tokenizer import CoordTok

Fit = Literal["crop", "tile"]


class Reconstruction(NamedTuple):
    """The wanted frames of one window, as they were and as the tokens give them back."""

    moments: tuple[Fraction, ...]
    """Where they are in the video, in frames from 0."""
    source: Film
    """(F, H, W, 3) RGB, as it was encoded: after cropping, if the video was cropped. Between two
    frames it is the earlier one."""
    output: Film
    """(F, H, W, 3) RGB."""
    encoded: int
    """Frames of the video that the window's tokens stand for and no earlier window's did."""
    clips: int
    """Tiles that were encoded, each into the model's number of tokens."""


class _Window(NamedTuple):
    first: int
    film: Film
    """(T, H, W, 3); anything beyond the real frames."""
    real: int
    fresh: int
    """Real frames that the window before does not hold."""
    moments: tuple[Fraction, ...]
    """Wanted ones, those up to the last frame of the window before left out."""


@dataclass(frozen=True)
class Decoding:
    """How `CoordTok.decode` is called, and how many tiles are encoded and decoded at once."""

    points_per_pass: int | None = None
    grouping: Grouping = DEFAULT_GROUPING
    batch: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch is {self.batch}; take at least 1 tile at a time")


def reconstruct(
    model: CoordTok,
    video: SourceVideo,
    *,
    fit: Fit = "crop",
    frames: FrameRange | None = None,
    decoding: Decoding | None = None,
    on_read: Callable[[], object] = lambda: None,
) -> Iterator[Reconstruction]:
    """Encode and decode `video` window by window; yields each window that has wanted frames.

    fit: "crop" scales every frame so that it covers the model's size and cuts off what hangs over;
    "tile" keeps the video's own size and covers it with tiles of the model's, so that memory holds
    two windows of full-size frames. frames: the wanted ones, all by default; also moments between
    them, which take memory as frames do. on_read: called after each frame that was read.

    Raises:
        ConfigError: moments between frames, of a model that has none, or too large a batch.
        DataError: the video cannot be read, or lacks wanted frames, or changes size under "tile",
            or does not fit into memory.
        CheckpointError: the model's output is not finite.
    """
    if fit not in get_args(Fit):
        raise ConfigError(f"fit is {fit!r}; choose one of {', '.join(get_args(Fit))}")
    wanted = frames or FrameRange()
    size = (model.config.height, model.config.width)
    prepare = partial(resize_and_crop, height=size[0], width=size[1]) if fit == "crop" else _as_is
    if wanted.tick != 1:
        check_between(model.config)
    for window in _windows(video, wanted, model.config.frames, prepare, on_read):
        if window.moments:
            with naming(video.path):
                result = _reconstruct(model, window, decoding or Decoding())
            yield result


def frames_to_read(wanted: FrameRange, length: int) -> int | None:
    """Frames up to the end of the last window of `length` with a wanted one; None: all."""
    if wanted.stop is None:
        return None
    overlap = _overlap(wanted)
    windows = max(1, -(-(wanted.stop - overlap) // (length - overlap)))
    return windows * (length - overlap) + overlap


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


def _as_is(picture: Picture) -> Picture:
    return picture


def _windows(
    video: SourceVideo,
    wanted: FrameRange,
    length: int,
    prepare: Callable[[Picture], Picture],
    on_read: Callable[[], object],
) -> Iterator[_Window]:
    """The windows that may hold wanted frames, read no further than the last of them."""
    with naming(video.path):
        reel = _Reel(_counted(video, on_read), _overlap(wanted))
        first, unseen = 0, Fraction(0)
        while not wanted.ends_by(unseen):
            part = reel.window(length)
            if wanted.within(unseen, first + length):
                film, read = _fill(first, map(prepare, part), length)
                fresh = read - (_overlap(wanted) if first else 0)
                moments = tuple(map(wanted.moment, wanted.within(unseen, first + read)))
                yield _Window(first, film, read, fresh, moments)
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


def _reconstruct(model: CoordTok, window: _Window, decoding: Decoding) -> Reconstruction:
    moments = window.moments
    source = _source(window)
    output = np.empty_like(source)
    size = (model.config.height, model.config.width)
    places = tiles((source.shape[1], source.shape[2]), size)
    for start in range(0, len(places), decoding.batch):
        part = places[start : start + decoding.batch]
        clips = np.stack([cut(window.film, tile, *size) for tile in part])
        with _enough_memory(len(part)):
            pixels = _through(model, torch.from_numpy(clips), window, decoding)
        if pixels is None:
            raise CheckpointError(
                f"the model's output for frames {float(moments[0]):g} to {float(moments[-1]):g} "
                "is not finite: use --dtype float32 or an export of an earlier step"
            )
        for tile, clip in zip(part, pixels):
            lay(output, tile, clip)
    return Reconstruction(moments, source, output, window.fresh, len(places))


def _source(window: _Window) -> Film:
    """The frames at or before the wanted moments, copied only where one is needed twice."""
    held = [int(moment) - window.first for moment in window.moments]
    step = max(1, held[1] - held[0]) if len(held) > 1 else 1
    run = range(held[0], held[-1] + 1, step)
    return window.film[run.start : run.stop : step] if held == list(run) else window.film[held]


@contextmanager
def _enough_memory(tiles_at_once: int) -> Iterator[None]:
    """A device that runs out of memory is one line."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise ConfigError(
            f"the device's memory does not hold {tiles_at_once} tiles and a pass over them; lower "
            "--batch or --points-per-pass, or take another device"
        ) from None


@torch.no_grad()
def _through(
    model: CoordTok, clips_BTHW3: torch.Tensor, window: _Window, decoding: Decoding
) -> Film | None:
    """The wanted moments of some clips, (B, F, H, W, 3), or None where one is not finite."""
    local = [moment - window.first for moment in window.moments]
    between = any(moment.denominator != 1 for moment in local)
    pixels = model.decode(
        model.encode(clips_BTHW3, [window.real] * len(clips_BTHW3)),
        None if between else [int(moment) for moment in local],
        decoding.points_per_pass,
        times=local if between else None,
        grouping=decoding.grouping,
    )
    return to_uint8(pixels).cpu().numpy() if pixels.isfinite().all() else None
