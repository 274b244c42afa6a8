"""Which videos a dataset holds: their files, names, classes and splits.

Scanning opens no file whose name is that of a video. What a dataset lists but does not have is
returned as a failure, so that it is counted and named like a video that cannot be read.
"""

import csv
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from coordtok.errors import ConfigError, DataError
from coordtok.storage.files import MOST_TEXT_BYTES, read_whole
from coordtok.video.folder import Video, files_below, find_videos, printable
from data_prep.options import BuildOptions


@dataclass
class Scan:
    """What was found: videos in the order of their names, failures as (name, reason)."""

    videos: list[Video] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)
    """Files that no one takes for videos, and why."""
    _names: set[str] = field(default_factory=set)

    def add(self, video: Video) -> None:
        """Take a listed video, unless it is not there or was listed before."""
        if not os.path.isfile(video.path):
            link = os.path.islink(video.path)
            reason = "a link to no file" if link else "listed, but there is no such file"
            self.failures.append((video.name, reason))
        elif video.name in self._names:
            self.failures.append((video.name, "listed more than once; the first was taken"))
        else:
            self._names.add(video.name)
            self.videos.append(video)


def scan(options: BuildOptions) -> Scan:
    """Find the dataset's videos.

    Raises:
        DataError: the folder, a list or a split file is missing, empty or not what it should be.
    """
    found = _SCANNERS[options.dataset](options)
    found.videos.sort(key=lambda video: video.name)
    if not found.videos and not found.failures:
        others = "".join(f", but {name} ({reason})" for name, reason in found.ignored[:1])
        raise DataError(
            f"no video in {options.input}{others}: give the folder that holds them, or another "
            "--dataset"
        )
    return found


def _scan_folder(options: BuildOptions) -> Scan:
    root = _folder(options.input)
    videos, ignored = find_videos(root, Path(options.output), options.split, probe=True)
    found = Scan(ignored=ignored)
    for video in videos:
        found.add(video)
    return found


def _scan_ucf101(options: BuildOptions) -> Scan:
    root, splits = _folder(options.input), _folder(options.splits or "")
    if options.split not in ("train", "test"):
        raise ConfigError(f"--split {options.split}: UCF-101 has train and test")
    labels = {}
    for line in _lines(splits / "classInd.txt"):
        number, _, name = line.partition(" ")
        if not re.fullmatch("[0-9]{1,6}", number) or not name:
            raise DataError(f"{splits / 'classInd.txt'}: {line!r} is not '1 ApplyEyeMakeup'")
        labels[name.strip()] = int(number) - 1
    found = Scan()
    for line in _lines(splits / f"{options.split}list{options.fold:02d}.txt"):
        name = line.rsplit(" ", 1)[0] if line.rsplit(" ", 1)[-1].isdigit() else line
        folder = name.split("/")[0]
        if folder not in labels or ".." in Path(name).parts:
            raise DataError(f"{line!r} in the split file: its class is not in classInd.txt")
        video = Video(str(root / name), name, labels[folder], folder, options.split)
        found.add(video)
    return found


def _scan_kinetics(options: BuildOptions) -> Scan:
    root = _folder(options.input)
    rows = _csv_rows(Path(options.csv or ""))
    names = sorted({row["label"] for row in rows if row.get("label")})
    labels = {name: number for number, name in enumerate(names)}
    files: dict[str, Path] = {}
    for path in files_below(root, Path(options.output)):
        files.setdefault(path.stem, path)
    found = Scan()
    for row in rows:
        if options.split is not None and row.get("split") != options.split:
            continue
        stems = [stem for stem in _kinetics_stems(row) if stem in files]
        if not stems:
            reason = "no file named ID.* or ID_START_END.* for this row of the CSV"
            found.failures.append((_kinetics_stems(row)[0], reason))
            continue
        path = files[stems[0]]
        label = row.get("label") or None
        name = printable(path.relative_to(root))
        found.add(Video(str(path), name, labels.get(label or ""), label, row.get("split") or None))
    if not found.videos and not found.failures and options.split is not None:
        known = ", ".join(sorted({row.get("split") or "" for row in rows}))
        raise DataError(
            f"--split {options.split}: no such rows in {options.csv}, which has {known}"
        )
    return found


def _scan_list(options: BuildOptions) -> Scan:
    listing = Path(options.input)
    if listing.is_dir():
        raise DataError(f"{listing} is a folder: --dataset list takes a text file of paths")
    found = Scan()
    for line in _lines(listing):
        path = listing.parent / line
        found.add(Video(str(path), printable(line), split=options.split))
    return found


_SCANNERS: dict[str, Callable[[BuildOptions], Scan]] = {
    "folder": _scan_folder,
    "ucf101": _scan_ucf101,
    "kinetics": _scan_kinetics,
    "list": _scan_list,
}


def _folder(path: str) -> Path:
    if not os.path.isdir(path):
        raise DataError(f"no folder {path}: check the path")
    return Path(path)


def _lines(path: Path) -> list[str]:
    """Lines of a text file that are not empty; entries end with NUL where it holds one."""
    try:
        text = os.fsdecode(read_whole(path, MOST_TEXT_BYTES))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {_reason(error)}") from None
    entries = text.split("\0") if "\0" in text else [line.rstrip("\r") for line in text.split("\n")]
    return [entry for entry in entries if entry.strip()]


def _csv_rows(path: Path) -> list[dict[str, str]]:
    try:
        text = read_whole(path, MOST_TEXT_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = list(reader)
        columns = reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {_reason(error)}") from None
    if "youtube_id" not in columns:
        raise DataError(f"{path} has the columns {', '.join(columns)}: youtube_id is missing")
    return rows


def _reason(error: Exception) -> object:
    return getattr(error, "strerror", None) or error


def _kinetics_stems(row: dict[str, str]) -> list[str]:
    """File names without suffix that a row may have."""
    identity = row.get("youtube_id") or ""
    stems = []
    try:
        start, end = (int(float(row.get(column) or "")) for column in ("time_start", "time_end"))
        stems = [f"{identity}_{start:06d}_{end:06d}", f"{identity}_{start}_{end}"]
    except (ValueError, OverflowError):  # of inf
        pass
    return [*stems, identity]
