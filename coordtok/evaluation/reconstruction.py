"""Any video through a tokenizer: any length, any size, any frames of it.

A video is read once, in consecutive windows of as many frames as the model takes; the last one may
be shorter and is padded. Only one window is held at a time, so memory does not grow with the
length, and windows without a wanted frame are read past, not encoded.

Shapes: T frames of a window, F wanted frames of it, H rows, W columns, 3 colours.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
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
from coordtok.models.tokenizer import CoordTok

Fit = Literal["crop", "tile"]


class Reconstruction(NamedTuple):
    """The wanted frames of one window, as they were and as the tokens give them back."""

    frames: range
    """Their numbers in the video, from 0."""
    source: Film
    """(F, H, W, 3) RGB, as it was encoded: after cropping, if the video was cropped."""
    output: Film
    """(F, H, W, 3) RGB."""
    encoded: int
    """Frames of the video that the window's tokens stand for: T, or fewer at the end."""
    clips: int
    """Tiles that were encoded, each into the model's number of tokens."""


class _Window(NamedTuple):
    first: int
    film: Film
    """(T, H, W, 3); anything beyond the real frames."""
    real: int


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
    two windows of full-size frames. frames: the wanted ones, all by default. on_read: called after
    each frame that was read.

    Raises:
        DataError: the video cannot be read, or lacks wanted frames, or changes size under "tile".
        CheckpointError: the model's output is not finite.
    """
    if fit not in get_args(Fit):
        raise ConfigError(f"fit is {fit!r}; choose one of {', '.join(get_args(Fit))}")
    wanted = frames or FrameRange()
    size = (model.config.height, model.config.width)
    prepare = partial(resize_and_crop, height=size[0], width=size[1]) if fit == "crop" else _as_is
    for window in _windows(video, wanted, model.config.frames, prepare, on_read):
        chosen = wanted.within(window.first, window.first + window.real)
        if chosen:
            yield _reconstruct(model, window, chosen, decoding or Decoding())


@contextmanager
def naming(video: object) -> Iterator[None]:
    """Errors of reading say which video it was."""
    try:
        yield
    except UnreadableVideo as error:
        raise DataError(f"{video}: {error}; name a video that plays to its end") from None


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
        pictures = _counted(video, on_read)
        for first in count(0, length):
            if wanted.ends_by(first):
                return
            part = islice(pictures, length)
            if wanted.within(first, first + length):
                window = _fill(first, map(prepare, part), length)
                yield window
                read = window.real
            else:
                read = sum(1 for _ in part)
            if read < length:
                wanted.check(first + read)
                return


def _counted(video: SourceVideo, on_read: Callable[[], object]) -> Iterator[Picture]:
    for picture in video.frames():
        on_read()
        yield picture


def _fill(first: int, pictures: Iterator[Picture], length: int) -> _Window:
    """A window of the pictures that are left, at most `length`."""
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
    return _Window(first, film, real)


def _room(length: int, picture: Picture) -> Film:
    try:
        return np.zeros((length, *picture.shape), np.uint8)
    except MemoryError:
        height, width, _ = picture.shape
        raise DataError(
            f"{length} frames of {height} x {width} do not fit into memory; crop the video"
        ) from None


def _reconstruct(
    model: CoordTok, window: _Window, chosen: range, decoding: Decoding
) -> Reconstruction:
    local = range(chosen.start - window.first, chosen.stop - window.first, chosen.step)
    source = window.film[local.start : local.stop : local.step]
    output = np.empty_like(source)
    size = (model.config.height, model.config.width)
    places = tiles((source.shape[1], source.shape[2]), size)
    for start in range(0, len(places), decoding.batch):
        part = places[start : start + decoding.batch]
        clips = np.stack([cut(window.film, tile, *size) for tile in part])
        pixels = _through(model, torch.from_numpy(clips), window.real, local, decoding)
        if pixels is None:
            raise CheckpointError(
                f"the model's output for frames {chosen.start} to {chosen[-1]} is not finite: "
                "use --dtype float32 or an export of an earlier step"
            )
        for tile, clip in zip(part, pixels):
            lay(output, tile, clip)
    return Reconstruction(chosen, source, output, window.real, len(places))


@torch.no_grad()
def _through(
    model: CoordTok, clips_BTHW3: torch.Tensor, real: int, local: range, decoding: Decoding
) -> Film | None:
    """Frames `local` of some clips, (B, F, H, W, 3), or None where one is not finite."""
    pixels = model.decode(
        model.encode(clips_BTHW3, [real] * len(clips_BTHW3)),
        local,
        decoding.points_per_pass,
        grouping=decoding.grouping,
    )
    return to_uint8(pixels).cpu().numpy() if pixels.isfinite().all() else None
