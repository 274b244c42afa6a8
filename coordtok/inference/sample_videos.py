"""Videos from a generator, many on many ranks.

    OUTPUT/  sample.json   the settings, then the summary     00000000.mp4 ...
             grid.png      some frames of the first videos    00000000.safetensors ... if asked for

Sample i depends on the seed and on i alone. Files that an earlier call with the same settings
completed are kept.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from coordtok import distributed
from coordtok.config.load import to_dict
from coordtok.diffusion.samplers import evaluations
from coordtok.errors import CheckpointError, ConfigError
from coordtok.geometry.pixels import to_uint8
from coordtok.geometry.planes import Planes
from coordtok.inference.generation import Generation, chunks, generate_chunk
from coordtok.inference.reconstruct import Decoding
from coordtok.models.dit import TriplaneDiT
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import TokenizerId
from coordtok.progress import ProgressBar
from coordtok.storage.claims import Claim
from coordtok.storage.files import write_whole
from coordtok.storage.locks import sole_owner
from coordtok.video.codec import (
    count_frames,
)
from coordtok.video.decoding import decode_frames
from coordtok.video.mp4 import write_mp4
from coordtok.video.pictures import write_picture

CLAIM = "sample.json"
GRID = "grid.png"
GRID_VIDEOS, GRID_FRAMES = 16, 8
MOST = 10**8


@dataclass(frozen=True)
class SampleRequest:
    """How many videos, and how they are made and decoded."""

    num: int
    generation: Generation
    decoding: Decoding
    fps: float = 25.0
    """Of the files."""
    keep_latents: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.num <= MOST:
            raise ConfigError(f"num is {self.num}; make between 1 and {MOST} videos")
        if not 0 < self.fps <= 1000:
            raise ConfigError(f"fps is {self.fps}; it must be above 0, and 1000 at most")


def tokenizer_folder(model: TriplaneDiT, named: str | None) -> str:
    """The export `named`, or where the tokenizer of the model's latents lay when they were made.

    Raises:
        CheckpointError: none is named and the model does not say, or it is no longer there.
    """
    if named is not None:
        return named
    known = model.settings.tokenizer
    if known is None:
        raise CheckpointError(
            "the model does not say which tokenizer it is of: add --tokenizer DIR"
        )
    if not Path(known.path).is_dir():
        raise CheckpointError(
            f"the model's tokenizer is no longer at {known.path}: say where with --tokenizer DIR"
        )
    return known.path


def check_pair(model: TriplaneDiT, tokenizer: CoordTok, identity: TokenizerId) -> None:
    """Raise a `CheckpointError` unless `tokenizer` is the one whose latents `model` makes."""
    wanted = model.settings.tokenizer
    if wanted is not None and wanted.fingerprint != identity.fingerprint:
        raise CheckpointError(
            f"the model makes latents of the tokenizer {wanted.path} (fingerprint "
            f"{wanted.fingerprint[:12]}), not of {identity.path} ({identity.fingerprint[:12]}); "
            "name that one with --tokenizer"
        )
    difference = model.latent.difference(tokenizer.config.latent)
    if difference is not None:
        raise CheckpointError(
            f"the model makes {difference} as the tokenizer {identity.path} takes; name another "
            "with --tokenizer"
        )


def sample_videos(
    model: TriplaneDiT,
    model_id: str,
    tokenizer: CoordTok,
    tokenizer_id: TokenizerId,
    output: Path,
    request: SampleRequest,
    *,
    progress: bool = False,
) -> int:
    """Make the videos of `request` in the folder `output`; all ranks call it together.

    model_id: the model's fingerprint. Returns how many videos are there now.

    Raises:
        ConfigError: settings that do not fit the model, or a folder begun with others.
        CheckpointError: the tokenizer is another, or what comes out is not finite.
        DataError: no room, or a folder with something else in it.
    """
    request.generation.check(model.config)
    check_pair(model, tokenizer, tokenizer_id)
    settings = _settings(model, model_id, tokenizer, tokenizer_id, request)
    claim = Claim(output, CLAIM, settings)
    maker = _Maker(model, tokenizer, output, request)
    with ExitStack() as owned:
        distributed.run_on_main(lambda: _begin(owned, claim, output))
        distributed.together(lambda: maker.run(progress))
        return distributed.run_on_main(lambda: _finish(claim, output))


class _Maker:
    """This rank's share of the videos."""

    def __init__(
        self, model: TriplaneDiT, tokenizer: CoordTok, output: Path, request: SampleRequest
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._output, self._request = output, request
        everyones = chunks(request.num, request.generation.batch)
        self._own = everyones[distributed.rank() :: distributed.world_size()]

    def run(self, progress: bool) -> None:
        """Make what is not there yet."""
        todo = [chunk for chunk in self._own if not self._is_made(chunk)]
        steps = evaluations(self._request.generation.sampler)
        total = None if steps is None else steps * len(todo)
        with ProgressBar(total=total, unit="step", disable=not progress, desc="sample") as bar:
            for chunk in todo:
                self._make(chunk, bar.update)

    def _is_made(self, chunk: range) -> bool:
        return all(video_path(self._output, number).exists() for number in chunk)

    @torch.no_grad()
    def _make(self, chunk: range, on_evaluation: Callable[[], object]) -> None:
        model, how = self._model, self._request.generation
        planes = generate_chunk(model, model.config, model.device, chunk, how, on_evaluation)
        planes = model.statistics.denormalise(planes)
        for place, number in enumerate(chunk):
            one = planes.one(place)
            if self._request.keep_latents:
                self._write_latent(number, one)
            self._write_video(number, one)

    def _write_latent(self, number: int, planes: Planes) -> None:
        tensors = {name: plane[0].cpu().contiguous() for name, plane in planes._asdict().items()}
        write_whole(video_path(self._output, number).with_suffix(".safetensors"), save(tensors))

    def _write_video(self, number: int, planes: Planes) -> None:
        how = self._request.decoding
        pixels = self._tokenizer.decode(planes, None, how.points_per_pass, grouping=how.grouping)
        if not pixels.isfinite().all():
            raise CheckpointError(
                f"the tokenizer's output for sample {number} is not finite; use --compute-dtype "
                "float32"
            )
        video_THW3 = to_uint8(pixels[0]).cpu().numpy()
        write_mp4(video_path(self._output, number), video_THW3, Fraction(self._request.fps))


def video_path(output: Path, number: int) -> Path:
    return output / f"{number:08d}.mp4"


def _settings(
    model: TriplaneDiT,
    model_id: str,
    tokenizer: CoordTok,
    tokenizer_id: TokenizerId,
    request: SampleRequest,
) -> dict[str, Any]:
    """All that decides what is in the files; not how many there are."""
    how, decoding = request.generation, request.decoding
    return {
        "model": model_id,
        "tokenizer": tokenizer_id.fingerprint,
        "seed": how.seed,
        "classes": list(how.labels),
        "sampler": to_dict(how.sampler),
        "batch": how.batch,
        "compute": str(next(model.parameters()).dtype).removeprefix("torch."),
        "points_per_pass": decoding.points_per_pass or tokenizer.points_per_pass,
        "grouping": decoding.grouping,
        "fps": request.fps,
        "latents": request.keep_latents,
    }


def _begin(owned: ExitStack, claim: Claim, output: Path) -> None:
    owned.enter_context(sole_owner(output, "sample.py"))
    claim.take()


def _finish(claim: Claim, output: Path) -> int:
    """Show and count what is there, of earlier calls for more videos too."""
    files = sorted(output.glob("*.mp4"))
    write_picture(output / GRID, [_some_frames(path) for path in files[:GRID_VIDEOS]])
    claim.complete({"videos": len(files)})
    return len(files)


def _some_frames(path: Path) -> np.ndarray:
    """GRID_FRAMES frames of a file, evenly spread over it."""
    data = path.read_bytes()
    frames = count_frames(data)
    video_THW3 = decode_frames(data, 0, frames)
    return video_THW3[np.linspace(0, frames - 1, GRID_FRAMES).round().astype(int)]
