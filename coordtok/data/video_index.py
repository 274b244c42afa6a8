"""What is known of the videos of a folder: how many frames each has, and where decoding may begin.

Counts that files state are not believed, so every video is decoded once. What came of it is kept
beside the folder, as NAME.coordtok.json, or in the cache folder where that cannot be written; never
inside, among the raw data. Only videos that are new, or of another size or time, are decoded again.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coordtok.data.partition import MIN_FRAMES
from coordtok.errors import DataError, one_line
from coordtok.progress import ProgressBar
from coordtok.storage.cache import cache_folder
from coordtok.storage.files import write_whole
from coordtok.storage.json_files import parse_json
from coordtok.storage.locks import taking_turns
from coordtok.storage.names import short_hash
from coordtok.video.codec import UnreadableVideo
from coordtok.video.folder import Video
from coordtok.video.source import Anchor, open_video

_VERSION = 1


@dataclass(frozen=True)
class VideoFacts:
    """One file: its size and time when it was decoded, and what came of it."""

    bytes: int
    modified_ns: int
    frames: int = 0
    fps: float = 0.0
    anchors: tuple[Anchor, ...] = ()
    failure: str | None = None
    """Why it cannot be used."""

    def are_of(self, path: str) -> bool:
        """Whether the file is still the same; raises OSError where it cannot be seen."""
        found = os.stat(path)
        return (found.st_size, found.st_mtime_ns) == (self.bytes, self.modified_ns)


def read_facts(folder: Path, videos: Sequence[Video]) -> dict[str, VideoFacts]:
    """Of every video of the folder, by its name. One process at a time decodes what is not known
    yet, the others wait for it.

    Raises:
        DataError: a video cannot be seen, or nothing be written.
    """
    places = _places(folder)
    with taking_turns(folder):
        known = next((_load(path) for path in places if path.is_file()), {})
        facts = {each.name: known[each.name] for each in videos if _is_current(known, each)}
        pending = [each for each in videos if each.name not in facts]
        if pending:
            try:
                facts.update(_survey_all(pending))
            finally:
                _save(places, facts)
    return facts


def _places(folder: Path) -> list[Path]:
    """Where the index of a folder may lie, the best first."""
    path = Path(os.path.abspath(folder))
    beside = [path.with_name(f"{path.name}.coordtok.json")] if path.name else []
    return [*beside, cache_folder() / "videos" / f"{short_hash(str(path))}.json"]


def _is_current(known: Mapping[str, VideoFacts], video: Video) -> bool:
    try:
        return video.name in known and known[video.name].are_of(video.path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataError(f"cannot read {video.path}: {error.strerror}; check the disk") from None


def _survey_all(videos: Sequence[Video]) -> Iterator[tuple[str, VideoFacts]]:
    cores = len(os.sched_getaffinity(0))
    threads = max(1, cores // len(videos))
    with (
        ThreadPoolExecutor(cores) as pool,
        ProgressBar(total=len(videos), desc="looking through videos", unit=" videos") as bar,
    ):
        found = pool.map(lambda video: _survey(video.path, threads), videos)
        for video, facts in zip(videos, found):
            yield video.name, facts
            bar.update()


def _survey(path: str, threads: int) -> VideoFacts:
    if not os.path.exists(path):
        return VideoFacts(0, 0, failure="a link to no file")
    try:
        found = os.stat(path)
        source = open_video(path, threads)
        frames, anchors = source.survey()
        if frames < MIN_FRAMES:
            raise UnreadableVideo("a single picture")
    except UnreadableVideo as error:
        return VideoFacts(found.st_size, found.st_mtime_ns, failure=str(error))
    except OSError as error:
        raise DataError(f"cannot read {path}: {one_line(error)}; check the disk") from None
    fps = float(source.fps)
    return VideoFacts(found.st_size, found.st_mtime_ns, frames, fps, tuple(anchors))


def _load(path: Path) -> dict[str, VideoFacts]:
    """What an index says; nothing of one that is damaged, which is then made anew."""
    try:
        stored = parse_json(path.read_bytes())
        if stored["version"] != _VERSION:
            return {}
        return {name: _facts(each) for name, each in stored["videos"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _facts(stored: Mapping[str, Any]) -> VideoFacts:
    anchors = tuple(Anchor(int(number), int(stamp)) for number, stamp in stored["anchors"])
    facts = VideoFacts(**{**stored, "anchors": anchors, "fps": float(stored["fps"])})
    numbers = (facts.bytes, facts.modified_ns, facts.frames)
    if {type(each) for each in numbers} != {int} or not 0 <= facts.frames <= facts.bytes:
        raise ValueError(f"{numbers} are no facts of a video")
    return facts


def _save(places: Sequence[Path], facts: Mapping[str, VideoFacts]) -> None:
    videos = {name: asdict(each) for name, each in facts.items()}
    text = json.dumps({"version": _VERSION, "videos": videos})
    path = next((each for each in places if os.access(each.parent, os.W_OK)), places[-1])
    if path == places[-1]:
        _make_folder(path.parent)
    write_whole(path, text.encode())


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot keep an index of the videos in {folder}: {error.strerror}; name a folder that "
            "can be written in COORDTOK_CACHE"
        ) from None
