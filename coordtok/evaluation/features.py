"""Networks whose features the Frechet distance compares.

Any TorchScript file can be named. Such a file is a program: no Python in it is executed, but it can
read and write files, so take networks from people you trust. The usual one is StyleGAN-V's
`i3d_torchscript.pt` (I3D trained on Kinetics-400; 400 logits): its `forward` takes pixels 0..255
and the switches `rescale`, `resize` and `return_features`, and does the rest itself. A network
without those switches is given frames as `Preparation` says.

Shapes: B clips, T frames, H rows, W columns, 3 colours (C in front of T in a network), D features.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
import torch.nn.functional as functional

from coordtok.errors import ConfigError, DataError, one_line
from coordtok.storage.checksums import sha256_of_file

USUAL_FRAMES = 16
PixelRange = Literal["-1:1", "0:1", "0:255"]
_SWITCHES = {"rescale": True, "resize": True, "return_features": True}


class FeatureNetwork(Protocol):
    """Gives a clip's features; the same for a clip whatever else the batch holds."""

    name: str
    """As reports call it."""
    settings: dict[str, Any]
    """What its figures depend on, plain JSON."""

    def __call__(self, video_BTHW3: torch.Tensor) -> np.ndarray:
        """Features (B, D) float32 of uint8 video. Raises DataError where they are of no use."""


@dataclass(frozen=True)
class Preparation:
    """What a network without switches is given."""

    size: int | None = 224
    """Frames are scaled (bilinear) so that the short side is this, and cropped to a square; None
    leaves them as they are. The default is I3D's."""
    range: PixelRange = "-1:1"

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ConfigError(f"features-size is {self.size}; take at least 1 pixel, or 0 for none")

    def __call__(self, video_B3THW: torch.Tensor) -> torch.Tensor:
        low, high = (float(end) for end in self.range.split(":"))
        video_B3THW = video_B3THW * ((high - low) / 255) + low
        if self.size is None:
            return video_B3THW
        height, width = video_B3THW.shape[-2:]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = video_B3THW[..., top : top + side, left : left + side]
        frames = square.shape[2]
        flat = square.transpose(1, 2).flatten(0, 1)
        scaled = functional.interpolate(flat, (self.size, self.size), mode="bilinear")
        return scaled.unflatten(0, (-1, frames)).transpose(1, 2)


class TorchScriptFeatures:
    """A `FeatureNetwork` from a TorchScript file.

    Raises:
        DataError: no such file, or not TorchScript.
    """

    def __init__(
        self, path: Path, device: torch.device | str, preparation: Preparation | None = None
    ) -> None:
        self._path, self._device = path, device
        try:
            digest = sha256_of_file(path)
            self._network = torch.jit.load(path, map_location=device).eval()
        except Exception as error:  # its reader raises what it likes
            raise DataError(
                f"features {path} is no TorchScript file ({_reason(error)}); name one that "
                "torch.jit.save wrote, such as StyleGAN-V's i3d_torchscript.pt"
            ) from None
        if not hasattr(self._network, "forward"):
            raise DataError(f"features {path} has no forward; name a network that can be called")
        arguments = {each.name for each in self._network.forward.schema.arguments}
        self._preparation = None if arguments >= _SWITCHES.keys() else preparation or Preparation()
        given = "its own" if self._preparation is None else asdict(self._preparation)
        self.name = path.name
        self.settings = {"file": path.name, "sha256": digest, "preparation": given}

    @torch.no_grad()
    def __call__(self, video_BTHW3: torch.Tensor) -> np.ndarray:
        """As `FeatureNetwork` says."""
        video_B3THW = video_BTHW3.to(self._device).permute(0, 4, 1, 2, 3).float().contiguous()
        try:
            # The executor would compile after a call or two, and so change the last bits.
            with torch.jit.optimized_execution(False):
                features = (
                    self._network(video_B3THW, **_SWITCHES)
                    if self._preparation is None
                    else self._network(self._preparation(video_B3THW))
                )
        except (RuntimeError, TypeError, ValueError, IndexError, torch.jit.Error) as error:
            raise DataError(
                f"features {self._path} cannot take clips of shape {tuple(video_B3THW.shape)} "
                f"({_reason(error)}); see --features-size and --fvd-frames"
            ) from None
        return checked(features, len(video_BTHW3), str(self._path))


def checked(features: object, clips: int, name: str) -> np.ndarray:
    """`features` as (B, D) float32; DataError if they are of another shape or not finite."""
    if not isinstance(features, torch.Tensor) or not features.is_floating_point():
        found = getattr(features, "dtype", type(features).__name__)
        raise DataError(f"features {name} gives {found}, not a tensor of floats; name another")
    if features.ndim < 2 or len(features) != clips or features.shape[1:].numel() == 0:
        raise DataError(
            f"features {name} gives {tuple(features.shape)} for {clips} clips, not ({clips}, D); "
            "name a network that gives one vector for each clip"
        )
    if not features.isfinite().all():
        raise DataError(f"features {name} gives numbers that are not finite; name another network")
    return features.flatten(1).float().cpu().numpy()


@dataclass(frozen=True)
class FeatureChoice:
    """A network by name, and the lengths at which clips are compared."""

    network: str
    frames: tuple[int | None, ...] = ()
    """The first so many frames of each clip; None is the whole clip. Nothing said is both the usual
    16 and the whole clip."""
    preparation: Preparation = field(default_factory=Preparation)

    def lengths(self, frames: int) -> tuple[int, ...]:
        """The lengths for clips of `frames`, shortest first.

        Raises:
            ConfigError: a length that no clip has.
        """
        wanted = {frames if each is None else each for each in self.frames}
        if not wanted:
            wanted = {min(USUAL_FRAMES, frames), frames}
        if wrong := [each for each in wanted if not 1 <= each <= frames]:
            raise ConfigError(f"fvd-frames is {wrong[0]}; clips have 1 to {frames} frames")
        return tuple(sorted(wanted))


def _reason(error: Exception) -> str:
    """The last line of what torch says, and its first sentence: where in the file it happened and
    what else it might be is left out."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return one_line(getattr(error, "strerror", None) or lines[-1].split(". ")[0])
