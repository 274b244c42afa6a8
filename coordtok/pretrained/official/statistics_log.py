"""Mean and std of the latents out of the log of the authors' training, the only place that has
them."""

import math
import re
from pathlib import Path

import torch

from coordtok.diffusion.statistics import LatentStatistics
from coordtok.errors import CheckpointError
from coordtok.geometry.latent import LatentShape
from coordtok.geometry.planes import Planes, planes_of
from coordtok.pretrained.official.layout import THEIR_PLANES
from coordtok.storage.files import MOST_TEXT_BYTES, read_whole

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LOG_NAME = "log.txt"
"""What the file is called in the release."""


def read_statistics(log: Path, latent: LatentShape) -> LatentStatistics:
    """By our names of the planes. A run that was started twice has them twice: the first count, as
    in the authors' own sampling.

    Raises:
        CheckpointError: no such file, or what it lacks.
    """
    try:
        content = read_whole(log, MOST_TEXT_BYTES).decode(errors="replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"cannot read {log}: {reason}; --log is the {LOG_NAME} beside the authors' checkpoints"
        ) from None
    text = _COLOUR.sub("", content)

    def all_planes(kind: str) -> Planes:
        pairs = zip(THEIR_PLANES, latent.planes)
        return planes_of(
            latent, (_values(text, f"{name}_{kind}", ours.channels, log) for name, ours in pairs)
        )

    return LatentStatistics(all_planes("mean"), all_planes("std"))


def _values(text: str, name: str, channels: int, log: Path) -> torch.Tensor:
    """The numbers (C,) of a line such as `[time] xy_mean: tensor([0.1, 0.2])`, or of several."""
    found = re.search(rf"\b{name}:\s*tensor\(\[([^\]]*)\]", text)
    if found is None:
        raise CheckpointError(
            f"{log} lacks {name}: name the {LOG_NAME} of the run that trained this generator, whole"
        )
    try:
        values = [float(number) for number in found[1].split(",")]
    except ValueError:
        values = []
    if len(values) != channels or not all(map(math.isfinite, values)):
        raise CheckpointError(
            f"{log}: {name} is not {channels} numbers, one for each channel of the generator's "
            f"planes; name the {LOG_NAME} of the run that trained it"
        )
    if name.endswith("std") and min(values) <= 0:
        raise CheckpointError(f"{log}: {name} has {min(values)}, which no std is; it is damaged")
    return torch.tensor(values)
