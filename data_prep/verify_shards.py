"""Check shards against their index, or make an index for shards from elsewhere.

`python -m data_prep.verify_shards --help`. Exit code 0: nothing wrong; 1: problems, a line each; 2:
the question itself was wrong.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordtok.cli import Parser, exit_on_user_error, up_to
from coordtok.config.models import MOST_ALONG_AXIS
from coordtok.data.index import (
    INDEX_NAME,
    MOST_FILE_BYTES,
    MOST_INDEX_BYTES,
    MOST_LANES,
    SHARD_NAME,
    UNEVEN,
    SampleEntry,
    ShardEntry,
    ShardIndex,
    VideoSpec,
    even_lanes,
    unevenness,
)
from coordtok.data.latents import EXTENSION, LatentSpec, is_latent, read_planes
from coordtok.data.member import UnreadableSample
from coordtok.data.tars import LATENT_EXTENSIONS, VIDEO_EXTENSIONS, index_tar, read_members
from coordtok.errors import DataError, one_line
from coordtok.progress import ProgressBar
from coordtok.storage.files import write_whole
from coordtok.storage.local import LocalStore
from coordtok.video.codec import (
    RAW_HEADER_BYTES,
    UnreadableVideo,
    check_size,
    h264_settings,
    raw_layout,
)
from coordtok.video.decoding import decode_frames
from data_prep.held_out import TRAIN, VAL

_CLIP_FRAMES = 128
_PART_BYTES = 1 << 28
"""Of decoded pixels at a time."""


@dataclass
class Report:
    """Problems, printed as they are found without breaking the progress bar."""

    problems: int = 0

    def problem(self, text: object) -> None:
        self.problems += 1
        ProgressBar.write(f"problem: {one_line(text)}", file=sys.stdout)


def verify(folder: Path, decode: str, report: Report) -> ShardIndex | None:
    """Compare every shard with the index: size, sum, members, frames; decode some or all samples.

    Args:
        decode: "none", "one" (the first sample of every shard) or "all".
    """
    try:
        index = ShardIndex.from_json(_index_text(folder), str(folder / INDEX_NAME))
        if is_latent(index):
            LatentSpec.of(index, str(folder))
    except DataError as error:
        report.problem(error)
        return None
    listed = {shard.name for shard in index.shards}
    for path in sorted(folder.glob("*.tar")):
        if path.name not in listed:
            report.problem(f"{path.name} is not in the index: it would never be read")
    for shard in ProgressBar(index.shards, unit=" shards", desc="verify"):
        for problem in _shard_problems(folder / shard.name, shard, index, decode):
            report.problem(problem)
    return index


def write_index(
    folder: Path, clip_frames: int | None, fps: float | None, lanes: int | None
) -> ShardIndex:
    """Index the tars of a folder, wherever they were made. What is not given, and how they were
    encoded, is as in the index that is there, so that an index of the same tars stays the same.

    Raises:
        DataError: a tar is damaged or badly named, there is none, or no sample in any can be read.
    """
    paths = sorted(folder.glob("*.tar"))
    for path in paths:
        if not SHARD_NAME.fullmatch(path.name):
            raise DataError(
                f"shard name {path.name!r}: rename it to letters, digits, '.', '_', '-'"
            )
    with ProgressBar(paths, unit=" shards", desc="index") as bar:
        shards = tuple(index_tar(path) for path in bar)
    codec, (height, width) = _codec_and_size(folder, shards)
    counts = [len(shard.samples) for shard in shards]
    if (former := _former_index(folder)) is not None:
        _warn_of_changes(former, shards)
        clip_frames, fps = clip_frames or former.video.frames, fps or former.video.fps
        if former.codec["name"] == codec["name"]:
            codec = dict(former.codec)
        if lanes is None and former.lanes <= len(shards):
            lanes = former.lanes
    chosen = even_lanes(counts) if lanes is None else lanes
    if not 1 <= chosen <= len(shards):
        raise DataError(f"--lanes {chosen}: it must be within 1 and the {len(shards)} shards")
    video = VideoSpec(clip_frames or _CLIP_FRAMES, height, width, fps)
    index = ShardIndex(video, codec, chosen, shards)
    write_whole(folder / INDEX_NAME, index.to_json().encode())
    return index


def _warn_of_changes(former: ShardIndex, shards: Sequence[ShardEntry]) -> None:
    """Name what a new index would take for right: checksums say nothing of damage before them."""
    sums = {(shard.name, shard.bytes): shard.sha256 for shard in former.shards}
    for shard in shards:
        if sums.get((shard.name, shard.bytes), shard.sha256) != shard.sha256:
            print(
                f"warning: {shard.name} has other contents than the {INDEX_NAME} before said: copy "
                "it again if nothing should have changed it"
            )


def _former_index(folder: Path) -> ShardIndex | None:
    try:
        return ShardIndex.from_json(_index_text(folder), INDEX_NAME)
    except DataError:
        return None


def _index_text(folder: Path) -> str:
    path = folder / INDEX_NAME
    try:
        return LocalStore(str(folder)).read(INDEX_NAME, MOST_INDEX_BYTES).decode()
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: the build is unfinished (run it again), or the shards are from "
            f"elsewhere (python -m data_prep.verify_shards {folder} --write-index)"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from None


def _shard_problems(
    path: Path, shard: ShardEntry, index: ShardIndex, decode: str
) -> Iterator[str | DataError]:
    """What is wrong with one shard; the checks after a failed one would only repeat it."""
    if not path.is_file():
        yield f"{path.name} is missing"
        return
    size = path.stat().st_size
    if size != shard.bytes:
        yield f"{path.name} has {size} bytes, the index says {shard.bytes}"
    try:
        extensions = LATENT_EXTENSIONS if is_latent(index) else VIDEO_EXTENSIONS
        found, members = index_tar(path, extensions), read_members(path)
    except DataError as error:
        yield error
        return
    if size == shard.bytes and found.sha256 != shard.sha256:
        yield f"{path.name} has other contents than when it was indexed: its sha256 differs"
    listed = {sample.key: sample for sample in shard.samples}
    for member in members:
        if member.key_and_extension[0] not in listed:
            yield f"{path.name} has a member that is no part of a sample: {member.name!r}"
    there = {sample.key: sample for sample in found.samples}
    for key, sample in listed.items():
        if there.get(key) != sample:
            yield f"{path.name}: sample {key!r} is not as the index says (frames, place or size)"
        sums = there[key].checksums if key in there else {}
        for extension in sample.checksums.keys() & sums.keys():
            if sample.checksums[extension] != sums[extension]:
                yield f"{path.name}: sample {key!r}: the checksum of its .{extension} differs"
    wanted = {"none": 0, "one": 1, "all": len(found.samples)}[decode]
    for sample in found.samples[:wanted]:
        yield from _sample_problems(path, sample, index)


def _sample_problems(path: Path, sample: SampleEntry, index: ShardIndex) -> Iterator[str]:
    try:
        if is_latent(index):
            latent = LatentSpec.of(index, str(path)).latent
            read_planes(_read(path, sample, EXTENSION), latent.shapes)
        else:
            _decode(path, sample, sample.frames, (index.video.height, index.video.width))
    except (UnreadableVideo, UnreadableSample) as error:
        yield f"{path.name}: sample {sample.key!r} does not decode as the index says: {error}"


def _decode(
    path: Path, sample: SampleEntry, frames: int, size: tuple[int, int] | None = None
) -> tuple[tuple[int, int], str]:
    """Decode the first frames of a sample, of that (H, W), in parts: they may be an hour.

    Returns:
        The (H, W) that they have, and the extension they are stored under.
    """
    extension = next((ext for ext in VIDEO_EXTENSIONS if ext in sample.files), None)
    if extension is None or not frames:
        raise UnreadableVideo("no frames in it")
    if extension == "npy":
        stored = sample.files[extension][1]
        shape, start = raw_layout(_read(path, sample, extension, RAW_HEADER_BYTES), stored)
        if start + math.prod(shape) != stored:
            raise UnreadableVideo(f".npy of {shape} with {stored - start} bytes of pixels")
        if size is not None:
            check_size(shape[1:3], size)
        return shape[1:3], extension
    data = _read(path, sample, extension)
    part = max(1, _PART_BYTES // (3 * math.prod(size or (1, 1))))
    for first in range(0, frames, part):
        found = decode_frames(data, first, min(part, frames - first), size).shape[1:3]
    return found, extension


def _read(path: Path, sample: SampleEntry, extension: str, most: int = MOST_FILE_BYTES) -> bytes:
    offset, size = sample.files[extension]
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(min(size, most))


def _codec_and_size(
    folder: Path, shards: Sequence[ShardEntry]
) -> tuple[dict[str, Any], tuple[int, int]]:
    """Codec, height and width, from the first sample that can be read."""
    for shard in shards:
        for sample in shard.samples:
            try:
                size, extension = _decode(folder / shard.name, sample, 1)
            except UnreadableVideo:
                continue
            codec = {"name": "raw"}
            if extension != "npy":
                codec = {"name": "h264", **h264_settings(_read(folder / shard.name, sample, "mp4"))}
            return codec, size
    raise DataError(
        f"no .tar in {folder} holds a readable sample: KEY.mp4 or KEY.npy (latents are indexed by "
        "scripts/encode.py, which knows their statistics: run it again)"
    )


def parser() -> Parser:
    parser = Parser(
        "Check shards against their index.json: sizes, sums, members, frames; decode samples.\n"
        "Prints a line for each problem; exit code 0: none, 1: some, 2: wrong usage.",
        prog="python -m data_prep.verify_shards",
    )
    parser.add_argument(
        "folder", metavar="DIR", help="folder of shards, or of the folders train and val of such"
    )
    parser.add_argument(
        "--decode",
        choices=("none", "one", "all"),
        default="one",
        help="decode no sample, one of every shard, or all (default %(default)s)",
    )
    parser.add_argument(
        "--write-index",
        action="store_true",
        help="first make index.json anew from the tars themselves, for shards from elsewhere",
    )
    new = parser.add_argument_group("with --write-index")
    new.add_argument(
        "--clip-frames",
        type=up_to(MOST_ALONG_AXIS, 1),
        help=f"frames of a training clip (default: as in the index there is, else {_CLIP_FRAMES})",
    )
    new.add_argument("--fps", type=float, help="to record (default: as in the index there is)")
    new.add_argument(
        "--lanes",
        type=up_to(MOST_LANES),
        help="streams the data is dealt to; ranks must divide it (default: as in the index there "
        "is, else the largest divisor of 96 whose lanes are even within 10 %%)",
    )
    return parser


@exit_on_user_error
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    asked = parser().parse_args(arguments)
    folder = Path(asked.folder)
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: check the path")
    problems = 0
    for part in _parts(folder):
        if asked.write_index:
            write_index(part, asked.clip_frames, asked.fps, asked.lanes)
        report = Report()
        index = verify(part, asked.decode, report)
        if index is not None:
            _tell(part, index, report)
        problems += report.problems
    return 1 if problems else 0


def _parts(folder: Path) -> list[Path]:
    """The folder itself, or those in it where a part of the data is held out."""
    parts = [part for part in (folder / TRAIN, folder / VAL) if any(part.glob("*.tar"))]
    return [folder] if any(folder.glob("*.tar")) or not parts else parts


def _even_out(index: ShardIndex) -> str:
    lanes = even_lanes([len(shard.samples) for shard in index.shards])
    if is_latent(index):
        return f"video shards of {lanes} lanes, encoded again, would be even"
    return f"--write-index --lanes {lanes} would be even"


def _tell(folder: Path, index: ShardIndex, report: Report) -> None:
    counts = [len(shard.samples) for shard in index.shards]
    uneven = unevenness(counts, index.lanes)
    if uneven > UNEVEN:
        print(
            f"warning: lanes differ by {uneven:.0%} in their number of samples, so some are seen "
            f"more often than others: {_even_out(index)}"
        )
    if not index.has_checksums:
        print(
            f"note: {INDEX_NAME} is of before it held checksums, so damage that still decodes goes "
            "unnoticed; --write-index adds them"
        )
    frames = sum(sample.frames for shard in index.shards for sample in shard.samples)
    verdict = f"{report.problems} problems" if report.problems else "all as indexed"
    print(
        f"{folder}: {len(counts)} shards, {index.samples} samples, {frames} frames, "
        f"{index.lanes} lanes: {verdict}"
    )


if __name__ == "__main__":
    sys.exit(main())
