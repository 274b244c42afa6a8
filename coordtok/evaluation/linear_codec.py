"""The yardstick: a linear codec of as many numbers as a tokenizer's latent.

Videos are cut into tubelets, and each is kept as its coefficients on the first principal components
of the training videos' tubelets. A tokenizer that reconstructs the same videos from as many numbers
should score higher.

Shapes: B clips, T frames, H rows, W columns, 3 colours, L tubelets, P numbers of a tubelet, K
components.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from coordtok.config.models import TokenizerModelConfig
from coordtok.data.clip_reader import ClipReader
from coordtok.data.clips import one_per_sample
from coordtok.data.shards import OpenedShards
from coordtok.data.video_reader import VideoWindows
from coordtok.errors import ConfigError, DataError
from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.latent import Size3
from coordtok.geometry.patches import patchify, unpatchify
from coordtok.geometry.pixels import from_uint8
from coordtok.models.linear_fit import principal_components
from coordtok.storage.files import open_regular, write_whole

TUBELET = (16, 16, 16)
MOST_TUBELETS = 8192
"""Tubelets that a fit looks at: 400 MB of them at the default size."""
_POWER_ITERATIONS = 4


@dataclass(frozen=True)
class LinearCodec:
    """Principal components of tubelets."""

    tubelet: Size3
    """Frames, rows and columns."""
    mean_P: torch.Tensor
    basis_KP: torch.Tensor
    """Orthonormal rows, most important first."""

    @classmethod
    def fit(
        cls,
        clips: Iterable[torch.Tensor],
        tubelet: Size3,
        components: int,
        most_per_clip: int = MOST_TUBELETS,
    ) -> "LinearCodec":
        """The first principal components of the tubelets of `clips`, uint8 (B, T, H, W, 3) each.

        At most `MOST_TUBELETS` are looked at, of each clip as many drawn ones as `most_per_clip`.
        Randomised subspace iteration (Halko et al. 2011). The same on every call.

        Raises:
            ConfigError: fewer tubelets than components.
        """
        tubelets_LP = _collect(clips, tubelet, most_per_clip)
        if not 1 <= components <= min(tubelets_LP.shape):
            raise ConfigError(
                f"{components} components of {len(tubelets_LP)} tubelets of {tubelets_LP.shape[1]} "
                "numbers; take more clips, or larger tubelets"
            )
        mean_P = tubelets_LP.mean(0)
        centred_LP = tubelets_LP - mean_P
        return cls(tubelet, mean_P, principal_components(centred_LP, components, _POWER_ITERATIONS))

    def floats(self, size: Size3) -> int:
        """Numbers that a clip of `size` (T, H, W) is kept as.

        Raises:
            ConfigError: tubelets do not divide it.
        """
        return PatchGrid(size, self.tubelet).count * len(self.basis_KP)

    def reconstruct(self, video_BTHW3: torch.Tensor) -> torch.Tensor:
        """What is left of videos, uint8 or float in [-1, 1]; float32, not clipped."""
        _, frames, height, width, _ = video_BTHW3.shape
        grid = PatchGrid((frames, height, width), self.tubelet)
        centred_BLP = _tubelets(video_BTHW3, self.tubelet) - self.mean_P
        coefficients_BLK = centred_BLP @ self.basis_KP.T
        tubelets_BLP = coefficients_BLK @ self.basis_KP + self.mean_P
        return unpatchify(tubelets_BLP.unflatten(2, (*self.tubelet, 3)), grid)

    def save(self, path: Path) -> None:
        """Write a small safetensors file. Raises DataError where that cannot be done."""
        tensors = {"mean": self.mean_P, "basis": self.basis_KP}
        write_whole(path, save(tensors, {"tubelet": ",".join(map(str, self.tubelet))}))

    @classmethod
    def load(cls, path: Path, size: Size3, floats: int) -> "LinearCodec":
        """Read what `save` wrote, for clips of `size` that are to be kept as `floats` numbers.

        Raises:
            DataError: no such file, or a damaged one.
            ConfigError: it is made for another number of floats.
        """
        codec = _read(path)
        try:
            found, wanted = codec.floats(size), components_for(floats, size, codec.tubelet)
        except ConfigError as error:
            raise ConfigError(f"{path} does not fit the model: {error}") from None
        if len(codec.basis_KP) != wanted:
            raise ConfigError(
                f"{path} keeps a clip of {size} as {found} numbers, the model as {floats}: compare "
                "equal sizes; fit it with scripts/fit_linear_codec.py --config of this model"
            )
        return codec


def fit_to_shards(
    dataset: OpenedShards, model: TokenizerModelConfig, tubelet: Size3 | None = None
) -> LinearCodec:
    """The linear codec of as many numbers a clip as the latent of `model`, fitted to one random
    window of every sample.

    Raises:
        UserError: frames of another size, nothing readable, or tubelets that do not fit.
    """
    size = model.video_size
    tubelet = tubelet or default_tubelet(size)
    components = components_for(model.latent.numbers, size, tubelet)
    windows = [each for each in one_per_sample(dataset.index, size[0], 0) if each.frames == size[0]]
    batches = ClipReader(dataset, windows, VideoWindows(*size), batch=1)
    clips = (batch.data["video"] for batch in batches if batch.numbers)
    return LinearCodec.fit(clips, tubelet, components, math.ceil(MOST_TUBELETS / len(windows)))


def default_tubelet(size: Size3) -> Size3:
    """`TUBELET`, or along an axis the largest divisor of the clip's size up to it."""
    frames, height, width = (
        max(part for part in range(1, most + 1) if whole % part == 0)
        for whole, most in zip(size, TUBELET)
    )
    return frames, height, width


def components_for(floats: int, size: Size3, tubelet: Size3) -> int:
    """Components with which a clip of `size` is kept as `floats` numbers, or as few less as its
    tubelets can share evenly.

    Raises:
        ConfigError: there is less than one number for each tubelet.
    """
    count = PatchGrid(size, tubelet).count
    if floats < count:
        raise ConfigError(
            f"{floats} numbers are fewer than the {count} tubelets of {tubelet} in a clip; choose "
            "larger ones"
        )
    return floats // count


def _tubelets(video_BTHW3: torch.Tensor, tubelet: Size3) -> torch.Tensor:
    pixels = from_uint8(video_BTHW3) if video_BTHW3.dtype == torch.uint8 else video_BTHW3.float()
    return patchify(pixels, tubelet)


def _collect(clips: Iterable[torch.Tensor], tubelet: Size3, most_per_clip: int) -> torch.Tensor:
    """(L, P), at most `MOST_TUBELETS` of them."""
    drawn = torch.Generator().manual_seed(0)
    parts: list[torch.Tensor] = []
    count = 0
    for tubelets_LP in (each for clip in clips for each in _tubelets(clip, tubelet)):
        places = torch.randperm(len(tubelets_LP), generator=drawn)
        parts.append(tubelets_LP[places[: min(most_per_clip, MOST_TUBELETS - count)]])
        count += len(parts[-1])
        if count == MOST_TUBELETS:
            break
    if not parts:
        raise ConfigError("there is no clip to fit a linear codec to; name shards with clips")
    return torch.cat(parts)


def _read(path: Path) -> LinearCodec:
    try:
        with open_regular(path), safe_open(path, framework="pt") as file:
            frames, height, width = map(int, (file.metadata() or {})["tubelet"].split(","))
            mean_P, basis_KP = file.get_tensor("mean"), file.get_tensor("basis")
        if min(frames, height, width) < 1:
            raise ValueError("its tubelets have no size")
        if basis_KP.shape[1:] != (frames * height * width * 3,) or basis_KP.ndim != 2:
            raise ValueError("its components are not of its tubelets")
        if mean_P.shape != basis_KP.shape[1:]:
            raise ValueError("its mean is not of its components")
        for tensor in (mean_P, basis_KP):
            if tensor.dtype != torch.float32 or not tensor.isfinite().all():
                raise ValueError("its values are not finite numbers in float32")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise DataError(
            f"{path} is no linear codec ({error}); make one: python scripts/fit_linear_codec.py "
            "--help"
        ) from None
    return LinearCodec((frames, height, width), mean_P, basis_KP)
