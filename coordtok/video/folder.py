"""Which files of a folder are videos, and what their places in it say of them.

Names may be of any bytes; links to folders are followed, each folder once.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from coordtok.errors import DataError
from coordtok.video.source import why_no_video

_SUFFIXES = """
.3g2 .3gp .asf .avi .divx .dv .f4v .flv .gif .m1v .m2ts .m2v .m4v .mjpeg .mjpg .mkv .mov .mp4 .mpe
.mpeg .mpg .mts .mxf .nut .ogg .ogm .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m
"""
VIDEO_SUFFIXES = frozenset(_SUFFIXES.split())
_MOST_LOOKED_AT = 1000


@dataclass(frozen=True)
class Video:
    """A video file. `name` is its path within the dataset, printable, and tells it apart."""

    path: str
    name: str
    label: int | None = None
    class_name: str | None = None
    split: str | None = None


def find_videos(
    root: Path, without: Path | None = None, split: str | None = None, probe: bool = False
) -> tuple[list[Video], list[tuple[str, str]]]:
    """The videos below `root`, and the other files with the reasons why they are none.

    The first folder on the way to a video is its class; classes are numbered by their names.

    Args:
        without: a folder below `root` that is left out.
        split: recorded with every video.
        probe: open the files whose names are not those of videos, and take the videos among them.

    Raises:
        DataError: `root` is the root of the file system, as where a variable before a / is empty.
    """
    if os.path.realpath(root) == os.sep:
        raise DataError(f"{root} is the whole file system; name the folder of the videos")
    paths, ignored = [], []
    for path in files_below(root, without):
        reason = _why_ignored(path, probe)
        if reason is None:
            paths.append(path.relative_to(root))
        else:
            ignored.append((printable(path.relative_to(root)), reason))
    names = sorted({printable(each.parts[0]) for each in paths if len(each.parts) > 1})
    classes = {name: number for number, name in enumerate(names)}
    videos = []
    for each in paths:
        name = printable(each.parts[0]) if len(each.parts) > 1 else None
        label = classes.get(name or "")
        videos.append(Video(str(root / each), printable(each), label, name, split))
    return videos, ignored


def has_videos(root: Path) -> bool:
    """Whether one of the first `_MOST_LOOKED_AT` files below `root` is a video, by its name."""
    files = islice(files_below(root), _MOST_LOOKED_AT)
    return any(path.suffix.lower() in VIDEO_SUFFIXES for path in files)


def _why_ignored(path: Path, probe: bool) -> str | None:
    if path.name.startswith("."):
        return "a hidden file"
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return None
    return why_no_video(path) if probe else "no video by its name"


def files_below(root: Path, without: Path | None = None) -> Iterator[Path]:
    """All files below `root` in a fixed order; linked folders once each, `without` never."""
    seen = set() if without is None else {os.path.realpath(without)}
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names))


def printable(path: str | Path) -> str:
    """A path as text that any reader of JSON takes: stray bytes are written as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
