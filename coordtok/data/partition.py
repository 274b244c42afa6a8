"""How videos become samples: cut into segments, named, and dealt to lanes. Pure functions, shared
by the builder of shards and by folders that are read without.

Segments are consecutive and cover every frame. A long video becomes several, each of several clips,
so that random windows stay random; a remainder shorter than a clip joins the segment before it.
"""

import json
import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import PurePath
from typing import TypeVar

from coordtok.storage.names import short_hash
from coordtok.video.folder import Video

CLIPS_PER_SEGMENT = 4
MIN_FRAMES = 2
DEALING_SEED = 0
SHARD_PREFIX = "shard"

T = TypeVar("T")


def segment_lengths(frames: int, length: int, clip: int) -> list[int]:
    """Frames of the segments of a video: `length` each, but the last one of `clip` to
    `length + clip - 1`, or all of a shorter video."""
    whole = max(0, (frames - clip) // length)
    rest = frames - whole * length
    return [length] * whole + [rest] * (rest > 0)


def segment_key(name: str, start: int) -> str:
    """A key made of letters, digits, '-' and '_', unlike that of any other video or segment."""
    stem = PurePath(name).stem
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:40] or "video"
    return f"{readable}-{short_hash(name)[:12]}-{start:08d}"


def segment_info(video: Video, start: int, frames: int, fps: float) -> str:
    """The text of a segment's KEY.json; `start` is its first frame in the video."""
    info = {
        "source": video.name,
        "start_frame": start,
        "frames": frames,
        "fps": fps,
        "class": video.label,
        "class_name": video.class_name,
        "split": video.split,
    }
    return json.dumps(info)


def deal(samples: Sequence[tuple[str, T]], lanes: int, seed: int) -> list[list[T]]:
    """What each lane holds, from (key, sample) in any order: equally many within one, in an order
    drawn by `seed`, so that every lane is a fair share of the dataset."""
    dealt = sorted(samples, key=lambda each: _place(each[0], seed))
    return [[sample for _, sample in dealt[lane::lanes]] for lane in range(lanes)]


def _place(key: str, seed: int) -> tuple[bytes, str]:
    """A random place in the order; by hash and not by a generator, so that it never changes."""
    return blake2b(f"{seed}/{key}".encode(), digest_size=8).digest(), key
