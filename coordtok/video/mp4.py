"""Mp4 files for people to look at, written frame by frame.

Unlike the shards' codec this aims at the eye and at any player: 4:2:0 planes wherever the size is
even, high quality, BT.709 tagged as such. Only the encoder's few frames of look-ahead are held, so
an hour-long film takes no more memory than a short clip.
"""

from collections.abc import Iterable
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from coordtok.errors import DataError, one_line
from coordtok.storage.files import partial_path
from coordtok.video.codec import storable_rate
from coordtok.video.pixel_formats import as_planes

_ENCODER = {"crf": "14", "preset": "veryfast", "x264-params": "mbtree=0"}
"""x264's macroblock tree reads memory it never wrote: the same pictures would become now one file,
now another (codec.py does without it too)."""


class Mp4Writer:
    """An mp4 at `path`, complete once the `with` block is left; an existing file is replaced.

    The first picture decides the size. Odd sizes are kept exactly, in 4:4:4 planes, which some
    browsers do not play. `becomes` is the name that the file takes later, and that errors give.

    Raises:
        DataError: the disk is full, the folder cannot be written, or H.264 has no such size.
    """

    def __init__(self, path: Path, fps: Fraction, becomes: Path | None = None) -> None:
        self.path, self._becomes = path, becomes or path
        self._fps = storable_rate(fps)
        self._reformatter = VideoReformatter()
        self._stream: av.VideoStream | None = None
        self._frames = 0

    def __enter__(self) -> "Mp4Writer":
        try:
            # Names may look like URLs to ffmpeg, so the file is handed over open.
            self._file = open(self.path, "wb")
            self._container = av.open(self._file, "w", format="mp4")
        except OSError as error:
            raise self._failure(error) from None
        return self

    def write(self, picture_HW3: NDArray[np.uint8]) -> None:
        """Append one RGB picture, (H, W, 3) of the size of the first."""
        try:
            stream = self._stream = self._stream or self._start(picture_HW3)
            planes = as_planes(
                self._reformatter, picture_HW3, cast(str, stream.pix_fmt), self._frames
            )
            self._container.mux(stream.encode(planes))
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self._failure(error) from None
        self._frames += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with closing(self._file), closing(self._container):
                if kind is None and self._stream is not None:
                    self._container.mux(self._stream.encode(None))
        except (av.FFmpegError, OSError, ValueError) as failure:
            if kind is None:
                raise self._failure(failure) from None

    def _start(self, picture_HW3: NDArray[np.uint8]) -> av.VideoStream:
        height, width, _ = picture_HW3.shape
        stream = self._container.add_stream("libx264", rate=self._fps, options=dict(_ENCODER))
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        stream.codec_context.colorspace = Colorspace.ITU709
        stream.codec_context.color_range = ColorRange.MPEG
        return stream

    def _failure(self, error: Exception) -> DataError:
        reason = one_line(getattr(error, "strerror", None) or error)
        return DataError(
            f"cannot write {self._becomes}: {reason}; make room, choose another folder, or make "
            "the pictures smaller"
        )


def write_mp4(path: Path, video: Iterable[NDArray[np.uint8]], fps: Fraction) -> None:
    """A video (T, H, W, 3) as an mp4 that takes its name `path` only once it is complete.

    Raises:
        DataError: as `Mp4Writer` does.
    """
    with partial_path(path) as partial, Mp4Writer(partial, fps, path) as writer:
        for picture in video:
            writer.write(picture)
