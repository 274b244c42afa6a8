"""Any video through a tokenizer: any length, any size, any frames of it.

A video goes through in windows of as many frames as the model takes (windows.py), a short last one
padded. Only one window is held at a time, so memory does not grow with the length.

Shapes: T frames of a window, F wanted frames of it, H rows, W columns, 3 colours.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch

from coordtok.errors import CheckpointError, ConfigError
from coordtok.geometry.groups import DEFAULT_GROUPING, Grouping
from coordtok.geometry.pixels import to_uint8
from coordtok.inference.frame_range import FrameRange
from coordtok.inference.tiling import Film, cut, lay, tiles
from coordtok.inference.windows import Window, naming, windows
from coordtok.models.checks import check_between
from coordtok.models.tokenizer import CoordTok
from coordtok.video.source import Picture, SourceVideo, resize_and_crop

Fit = Literal["crop", "tile"]


class Reconstruction(NamedTuple):
    """The wanted frames of one window, as they were and as the tokens give them back."""

    times: tuple[Fraction, ...]
    """Where they are in the video, in frames from 0."""
    original: Film
    """(F, H, W, 3) RGB, as it was encoded: after cropping, if the video was cropped. Between two
    frames it is the earlier one."""
    output: Film
    """(F, H, W, 3) RGB."""
    encoded: int
    """Frames of the video that the window's tokens stand for and no earlier window's did."""
    clips: int
    """Tiles that were encoded, each into the model's number of tokens."""


@dataclass(frozen=True)
class Decoding:
    """How `CoordTok.decode` is called, and how many tiles are encoded and decoded at once."""

    points_per_pass: int | None = None
    grouping: Grouping = DEFAULT_GROUPING
    batch: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"batch is {self.batch}; take at least 1 at a time")
        if self.points_per_pass is not None and self.points_per_pass < 1:
            raise ConfigError(
                f"points_per_pass is {self.points_per_pass}; decode at least 1 patch a pass"
            )


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
    two windows of full-size frames. frames: the wanted ones, all by default; also times between
    them, which take memory as frames do. on_read: called after each frame that was read.

    Raises:
        ConfigError: times between frames, of a model that has none, or too large a batch.
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
    for window in windows(video, wanted, model.config.frames, prepare, on_read):
        if window.times:
            with naming(video.path):
                result = _reconstruct(model, window, decoding or Decoding())
            yield result


def _as_is(picture: Picture) -> Picture:
    return picture


def _reconstruct(model: CoordTok, window: Window, decoding: Decoding) -> Reconstruction:
    times = window.times
    original = _original(window)
    output = np.empty_like(original)
    size = (model.config.height, model.config.width)
    places = tiles((original.shape[1], original.shape[2]), size)
    for start in range(0, len(places), decoding.batch):
        part = places[start : start + decoding.batch]
        clips = np.stack([cut(window.film, tile, *size) for tile in part])
        with _enough_memory(len(part)):
            pixels = _through(model, torch.from_numpy(clips), window, decoding)
        if pixels is None:
            raise CheckpointError(
                f"the model's output for frames {times[0]} to {times[-1]} is not finite: "
                "use --compute-dtype float32 or an export of an earlier step"
            )
        for tile, clip in zip(part, pixels):
            lay(output, tile, clip)
    return Reconstruction(times, original, output, window.fresh, len(places))


def _original(window: Window) -> Film:
    """The frames at or before the wanted times, copied only where one is needed twice."""
    held = [int(time) - window.first for time in window.times]
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
    model: CoordTok, clips_BTHW3: torch.Tensor, window: Window, decoding: Decoding
) -> Film | None:
    """The wanted times of some clips, (B, F, H, W, 3), or None where one is not finite."""
    local = [time - window.first for time in window.times]
    between = any(time.denominator != 1 for time in local)
    pixels = model.decode(
        model.encode(clips_BTHW3, [window.real] * len(clips_BTHW3)),
        None if between else [int(time) for time in local],
        decoding.points_per_pass,
        times=local if between else None,
        grouping=decoding.grouping,
    )
    return to_uint8(pixels).cpu().numpy() if pixels.isfinite().all() else None
