"""A dataset of video shards to one of latent shards, on any number of ranks.

Each video shard becomes one latent shard of the same name, so that lanes stay what they were. Rank
r encodes every R-th shard of those that are not done; every forward pass has the same shape, and
what a shard holds and sums up to does not depend on who made it. Rank 0 adds the sums up in the
order of the shards and writes `index.json` last. Killed at any time, the same command goes on
after the shards that are complete.

    OUTPUT/  encode.json   the settings, then the summary    *.tar   skipped.jsonl   index.json
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import torch

from coordtok import distributed
from coordtok.config.load import build
from coordtok.data.clip_reader import ClipBatch, ClipReader
from coordtok.data.clips import Clip, WindowChoice
from coordtok.data.index import INDEX_NAME, ShardIndex, VideoSpec, lane_sizes
from coordtok.data.latents import LatentSpec, PlaneType
from coordtok.data.sample import SkippedSample
from coordtok.data.shards import OpenedShards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import CheckpointError, ConfigError, DataError, one_line
from coordtok.inference.channel_sums import ChannelSums
from coordtok.inference.latent_shard import WORK, Latent, ShardRecord, describe, write_shard
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import TokenizerId
from coordtok.pretrained.write import DTYPES
from coordtok.progress import ProgressBar
from coordtok.storage.claims import Claim
from coordtok.storage.files import write_whole
from coordtok.storage.locks import sole_owner
from coordtok.storage.names import safe_name

CLAIM = "encode.json"
SKIPPED = "skipped.jsonl"


@dataclass(frozen=True)
class Encoding:
    """What is encoded, and how."""

    windows: WindowChoice = field(default_factory=WindowChoice)
    dtype: PlaneType = "bfloat16"
    """Of the stored planes."""
    batch: int = 4
    """Clips of a forward pass."""
    workers: int = 1
    """Processes that read ahead; 0 reads and encodes in turns."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.workers < 0:
            raise ConfigError(
                f"batch is {self.batch} and workers {self.workers}; take at least 1 and 0"
            )


@dataclass(frozen=True)
class Summary:
    """A complete dataset of latents."""

    clips: int
    shards: int
    lanes: int
    bytes: int
    skipped: int
    """Videos of which a window could not be read."""


def encode(
    model: CoordTok,
    tokenizer: TokenizerId,
    dataset: OpenedShards,
    output: Path,
    how: Encoding,
    *,
    progress: bool = False,
) -> tuple[Summary, int]:
    """Encode `dataset` into the folder `output`, or go on with it; all ranks call it together.

    Returns:
        What is there now, and how many clips this call encoded on all ranks.

    Raises:
        DataError: frames of another size than the model's, nothing readable, no room, or an output
            folder with something else in it.
        ConfigError: the folder was begun with another model, other video or other settings.
        CheckpointError: the model's planes are not finite.
    """
    config = model.config
    read = VideoWindows(config.frames, config.height, config.width)
    distributed.together(lambda: read.check(dataset.index, dataset.location))
    claim = Claim(output, CLAIM, _settings(model, tokenizer, dataset.index, how))
    with ExitStack() as owned:
        finished = distributed.run_on_main(lambda: _begin(owned, claim, output))
        if finished is not None:
            return finished, 0
        done = distributed.run_on_main(lambda: _complete(output, dataset.index))
        clips = distributed.together(
            lambda: _encode_own(model, dataset, read, output, how, done, progress)
        )
        summary = distributed.run_on_main(
            lambda: _finish(model, tokenizer, dataset, output, how, claim)
        )
        return summary, sum(distributed.gather(clips))


def _settings(
    model: CoordTok, tokenizer: TokenizerId, index: ShardIndex, how: Encoding
) -> dict[str, object]:
    return {
        "tokenizer": tokenizer.fingerprint,
        "video": index.fingerprint,
        "windows": str(how.windows),
        "seed": None if how.windows.count is None else how.windows.seed,
        "dtype": how.dtype,
        "batch": how.batch,
        "compute": str(next(model.parameters()).dtype).removeprefix("torch."),
    }


def _begin(owned: ExitStack, claim: Claim, output: Path) -> Summary | None:
    """Take the folder; the summary if everything was done before."""
    owned.enter_context(sole_owner(output, "encode.py"))
    before = claim.take()
    if before is not None and (output / INDEX_NAME).exists():
        shutil.rmtree(output / WORK, ignore_errors=True)
        try:
            return build(Summary, before)
        except ConfigError:
            raise DataError(f"{output / CLAIM} is damaged: choose another folder") from None
    (output / WORK).mkdir(exist_ok=True)
    return None


def _complete(output: Path, index: ShardIndex) -> set[int]:
    """The shards that an earlier call completed, by their place in the index."""
    names = [shard.name for shard in index.shards]
    return {place for place, name in enumerate(names) if ShardRecord.load(output, name)}


def _encode_own(
    model: CoordTok,
    dataset: OpenedShards,
    read: VideoWindows,
    output: Path,
    how: Encoding,
    done: set[int],
    progress: bool,
) -> int:
    """This rank's share of the shards that are not done; returns how many clips it was."""
    shards = dataset.index.shards
    pending = [place for place in range(len(shards)) if place not in done]
    own = pending[distributed.rank() :: distributed.world_size()]
    by_shard = {place: how.windows.of_shard(dataset.index, place, read.frames) for place in own}
    clips = [clip for place in own for clip in by_shard[place]]
    reader = ClipReader(dataset, clips, read, batch=how.batch, workers=how.workers, by_shard=True)
    with ProgressBar(total=len(clips), unit="clip", disable=not progress, desc="encode") as bar:
        batches = iter(reader)
        for place in own:
            skipped: list[SkippedSample] = []
            its_batches = islice(batches, -(-len(by_shard[place]) // how.batch))
            write_shard(
                output / shards[place].name,
                _latents(model, its_batches, clips, DTYPES[how.dtype], skipped, bar),
                ChannelSums(model.config.latent.channels),
                skipped,
            )
            for each in skipped:
                ProgressBar.write(f"skipped: {each}")
    return len(clips)


def _latents(
    model: CoordTok,
    batches: Iterable[ClipBatch],
    clips: Sequence[Clip],
    dtype: torch.dtype,
    skipped: list[SkippedSample],
    bar: ProgressBar,
) -> Iterator[Latent]:
    """What the readable of `clips` become; videos with others are added to `skipped`, once each.
    `bar` counts both."""
    for batch in batches:
        for sample in batch.skipped:
            if not skipped or skipped[-1][:3] != sample[:3]:
                skipped.append(sample)
        planes = _planes(model, batch, dtype)
        for place, number in batch.numbers.items():
            key, start = batch.ids[place].key, clips[number].start
            info = describe(batch.infos[place], key, start, clips[number].frames)
            its_planes = {name: plane[place].clone() for name, plane in planes.items()}
            yield Latent(f"{safe_name(key)}-f{start:06d}", its_planes, info)
        bar.update(len(batch.numbers) + len(batch.skipped))


@torch.no_grad()
def _planes(model: CoordTok, batch: ClipBatch, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    planes = model.encode(batch.data["video"], batch.data["num_frames"]).to("cpu", dtype)
    if not all(plane[list(batch.numbers)].isfinite().all() for plane in planes):
        first, *others = (batch.ids[place].key for place in batch.numbers)
        raise CheckpointError(
            f"the model's planes of {first} or one of the next {len(others)} clips are not finite: "
            "use --compute-dtype float32 or an export of an earlier step"
        )
    return planes._asdict()


def _finish(
    model: CoordTok,
    tokenizer: TokenizerId,
    dataset: OpenedShards,
    output: Path,
    how: Encoding,
    claim: Claim,
) -> Summary:
    """Add up what the shards say of themselves; write what was skipped, and the index last."""
    records = _records(output, dataset.index)
    latent = model.config.latent
    sums = ChannelSums(latent.channels)
    for record in records:
        sums.merge(record.sums)
    skipped = [each for record in records for each in record.skipped]
    if not any(sums.count.values()):
        raise DataError(f"no video in {dataset.location} can be read; the first: {skipped[0]}")
    spec = LatentSpec(
        video=VideoSpec(*model.config.video_size, dataset.index.video.fps),
        dtype=how.dtype,
        latent=latent,
        tokenizer=tokenizer,
        mean=sums.mean(),
        std=sums.std(),
    )
    entries = tuple(record.entry for record in records)
    lanes = _lanes([len(entry.samples) for entry in entries], dataset.index.lanes)
    index = ShardIndex(spec.video, spec.codec(), lanes, entries)
    summary = Summary(
        clips=index.samples,
        shards=len(entries),
        lanes=lanes,
        bytes=sum(entry.bytes for entry in entries),
        skipped=len(skipped),
    )
    _write_skipped(output, skipped)
    claim.complete(asdict(summary))
    write_whole(output / INDEX_NAME, index.to_json().encode())
    shutil.rmtree(output / WORK, ignore_errors=True)
    return summary


def _records(output: Path, index: ShardIndex) -> list[ShardRecord]:
    records = []
    for shard in index.shards:
        record = ShardRecord.load(output, shard.name)
        if record is None:
            raise DataError(
                f"{output / shard.name} was removed or changed meanwhile; run the same command "
                "again to make it anew"
            )
        records.append(record)
    return records


def _lanes(shard_samples: Sequence[int], lanes: int) -> int:
    """As many as the video has; fewer, a divisor of them, where a lane would have no latents."""
    fitting = [n for n in range(1, lanes + 1) if lanes % n == 0]
    return max(n for n in fitting if all(lane_sizes(shard_samples, n)))


def _write_skipped(output: Path, skipped: Sequence[SkippedSample]) -> None:
    lines = [
        json.dumps({"shard": each.shard, "key": each.key, "reason": one_line(each.reason)}) + "\n"
        for each in skipped
    ]
    write_whole(output / SKIPPED, "".join(lines).encode())
