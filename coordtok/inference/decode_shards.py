"""Latent shards back into video: an mp4 for each sample, on any number of ranks.

    OUTPUT/  decode.json   the settings, then the summary    KEY.mp4 ...

Samples are decoded in batches that do not depend on the ranks; files that an earlier call with the
same settings completed are kept.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from coordtok import distributed
from coordtok.data.index import SampleEntry, ShardIndex
from coordtok.data.latents import LatentReader, LatentSpec
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.sample import rate_of, read_info
from coordtok.data.shards import OpenedShards
from coordtok.errors import CheckpointError, ConfigError, one_line
from coordtok.geometry.pixels import to_uint8
from coordtok.geometry.planes import planes_of
from coordtok.inference.frame_range import FrameRange
from coordtok.inference.reconstruct import Decoding
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import TokenizerId
from coordtok.progress import ProgressBar
from coordtok.storage.claims import Claim
from coordtok.storage.locks import sole_owner
from coordtok.storage.names import safe_name
from coordtok.video.mp4 import write_mp4

CLAIM = "decode.json"
_ASSUMED_RATE = 25.0  # where neither sample nor index states one


@dataclass(frozen=True)
class DecodeRequest:
    """Which samples and frames become files, and how."""

    most: int | None = None
    """The first so many samples in the order of the index; None is all."""
    frames: FrameRange = field(default_factory=FrameRange)
    """Of each clip."""
    decoding: Decoding = field(default_factory=Decoding)

    def __post_init__(self) -> None:
        if self.most is not None and self.most < 1:
            raise ConfigError(f"num is {self.most}; decode at least 1 sample")


class _Latent(NamedTuple):
    """A sample of the index and the name of its file."""

    shard: int
    sample: int
    name: str


class _Clip(NamedTuple):
    """A sample, read."""

    path: Path
    planes: dict[str, NDArray[np.float32]]
    frames: int
    fps: Fraction


def decode(
    model: CoordTok,
    tokenizer: TokenizerId,
    dataset: OpenedShards,
    output: Path,
    request: DecodeRequest,
    *,
    progress: bool = False,
) -> int:
    """Decode samples of `dataset` into the folder `output`; all ranks call it together.

    Returns how many files of them are there now.

    Raises:
        DataError: video shards, latents of another tokenizer, no room, or an output folder with
            something else in it.
        ConfigError: the folder was begun with other settings, or no frame is wanted.
        CheckpointError: the model's output is not finite.
    """
    spec = distributed.together(lambda: LatentSpec.of(dataset.index, dataset.location))
    distributed.together(lambda: spec.check_tokenizer(tokenizer, dataset.location))
    _check_frames(request.frames, spec.video.frames)
    claim = Claim(output, CLAIM, _settings(model, tokenizer, dataset.index, request))
    decoder = _Decoder(model, LatentReader(spec), dataset, output, request)
    with ExitStack() as owned:
        distributed.run_on_main(lambda: _begin(owned, claim, output))
        written = sum(distributed.gather(distributed.together(lambda: decoder.run(progress))))
        distributed.run_on_main(lambda: claim.complete({"files": written}))
    return written


class _Decoder:
    """This rank's share of the samples."""

    def __init__(
        self,
        model: CoordTok,
        read: LatentReader,
        dataset: OpenedShards,
        output: Path,
        request: DecodeRequest,
    ) -> None:
        self._model, self._read, self._dataset = model, read, dataset
        self._output, self._request = output, request
        latents = list(islice(_latents(dataset.index), request.most))
        size = request.decoding.batch
        chunks = [latents[first : first + size] for first in range(0, len(latents), size)]
        self._own = chunks[distributed.rank() :: distributed.world_size()]

    def run(self, progress: bool) -> int:
        """Decode what is not there yet; returns how many of this rank's files there are."""
        written = 0
        total = sum(map(len, self._own))
        with ProgressBar(total=total, unit="video", disable=not progress, desc="decode") as bar:
            for chunk in self._own:
                paths = [self._path(latent) for latent in chunk]
                if not all(path.exists() for path in paths):
                    clips = [clip for latent in chunk if (clip := self._clip(latent))]
                    self._write(clips)
                written += sum(path.exists() for path in paths)
                bar.update(len(chunk))
        return written

    def _path(self, latent: _Latent) -> Path:
        return self._output / f"{latent.name}.mp4"

    def _clip(self, latent: _Latent) -> _Clip | None:
        """The sample, or None where it cannot be read or has no wanted frame, which is said."""
        sample = self._dataset.reader.sample(latent.shard, latent.sample)
        try:
            values = self._read(sample)
            if not self._request.frames.within(0, values["num_frames"]):
                raise UnreadableSample(f"none of its {values['num_frames']} frames is wanted")
            fps = self._rate(sample)
        except UnreadableSample as error:
            ProgressBar.write(one_line(f"skipped: {sample.entry.key}: {error}"))
            return None
        planes = {name: values[name] for name in self._read.spec.latent.names}
        return _Clip(self._path(latent), planes, values["num_frames"], fps)

    def _rate(self, sample: StoredSample) -> Fraction:
        """Frames per second of the file: what the sample says, or the dataset."""
        stated = (rate_of(read_info(sample)), self._dataset.index.video.fps)
        usable = (fps for fps in stated if fps is not None)
        return Fraction(next(usable, _ASSUMED_RATE)) / self._request.frames.step

    @torch.no_grad()
    def _write(self, clips: list[_Clip]) -> None:
        if not clips:
            return
        how = self._request.decoding
        frames = self._request.frames
        times = map(frames.time, frames.within(0, max(clip.frames for clip in clips)))
        wanted = [int(time) for time in times]
        latent = self._read.spec.latent
        stacked = (np.stack([clip.planes[name] for clip in clips]) for name in latent.names)
        planes = planes_of(latent, map(torch.from_numpy, stacked))
        pixels = self._model.decode(planes, wanted, how.points_per_pass, grouping=how.grouping)
        if not pixels.isfinite().all():
            raise CheckpointError(
                f"the model's output for {clips[0].path.stem} or one decoded with it is not "
                "finite: use --compute-dtype float32 or an export of an earlier step"
            )
        for clip, video_FHW3 in zip(clips, to_uint8(pixels).cpu().numpy()):
            real = len(frames.within(0, clip.frames))
            write_mp4(clip.path, video_FHW3[:real], clip.fps)


def _check_frames(frames: FrameRange, total: int) -> None:
    if not frames.within(0, total):
        raise ConfigError(f"frames {frames} are none of a clip's {total}, counted from 0")


def _settings(
    model: CoordTok, tokenizer: TokenizerId, index: ShardIndex, request: DecodeRequest
) -> dict[str, Any]:
    how = request.decoding
    return {
        "tokenizer": tokenizer.fingerprint,
        "latents": index.fingerprint,
        "frames": str(request.frames),
        "points_per_pass": how.points_per_pass or model.points_per_pass,
        "grouping": how.grouping,
        "batch": how.batch,
        "compute": str(next(model.parameters()).dtype).removeprefix("torch."),
    }


def _begin(owned: ExitStack, claim: Claim, output: Path) -> None:
    owned.enter_context(sole_owner(output, "decode.py"))
    claim.take()


def _latents(index: ShardIndex) -> Iterator[_Latent]:
    """All samples with file names of their own: keys may come twice, in different shards."""
    taken: set[str] = set()
    for shard, entry in enumerate(index.shards):
        for sample, stored in enumerate(entry.samples):
            yield _Latent(shard, sample, _name(stored, taken))


def _name(sample: SampleEntry, taken: set[str]) -> str:
    first = safe_name(sample.key)
    numbered = (first if number == 1 else f"{first}-{number}" for number in count(1))
    name = next(each for each in numbered if each not in taken)
    taken.add(name)
    return name
