"""Latent shards: the planes of clips that a tokenizer encoded, read as samples for the loader.

They are shards like any other, with the same index, lanes and order. A sample is KEY.safetensors
(a tensor (rows, columns, channels) for each plane: xy, yt and xt in the paper's shape) beside a
KEY.json that names its class; the index's `codec` says what the planes are, which tokenizer made
them, and the mean and std of every channel of every plane over the whole dataset, all of it under
the index's fingerprint. No torch is needed to read them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors import deserialize

from coordtok.config.models import NO_LABEL
from coordtok.data.index import MOST_FILE_BYTES, ShardIndex, VideoSpec
from coordtok.data.member import StoredSample, UnreadableSample
from coordtok.data.sample import label_of, read_info
from coordtok.errors import ConfigError, DataError
from coordtok.geometry.latent import LatentShape
from coordtok.pretrained.card import TokenizerId

CODEC = "triplane"
"""What an index calls latents, those of other planes than the paper's too."""
EXTENSION = "safetensors"
PlaneType = Literal["bfloat16", "float32"]
_STORED_TYPES: dict[str, np.dtype[Any]] = {"BF16": np.dtype("<u2"), "F32": np.dtype("<f4")}

Planes = dict[str, NDArray[np.float32]]
ChannelValues = Mapping[str, tuple[float, ...]]
"""One number for each channel of each plane."""


@dataclass(frozen=True)
class LatentSpec:
    """What the samples of a latent dataset are."""

    video: VideoSpec
    """The clips that were encoded."""
    dtype: PlaneType
    """As stored; the reader gives float32 whatever it is."""
    latent: LatentShape
    tokenizer: TokenizerId
    mean: ChannelValues
    std: ChannelValues
    """Over all positions of all samples as they are stored."""

    @classmethod
    def of(cls, index: ShardIndex, location: str) -> "LatentSpec":
        """The spec in an index.

        Raises:
            DataError: the index is of video, or its spec is incomplete or damaged.
        """
        if not is_latent(index):
            raise DataError(
                f"{location} holds video where latents are wanted; encode it: python "
                f"scripts/encode.py --model EXPORT --shards {location} --output DIR"
            )
        try:
            return _spec(index.video, index.codec)
        except (KeyError, TypeError, ValueError, OverflowError, ConfigError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise DataError(
                f"the latents in {location} are described wrongly ({reason}); encode them again: "
                "python scripts/encode.py --help"
            ) from None

    def codec(self) -> dict[str, Any]:
        """What an index says of it."""
        return {
            "name": CODEC,
            "dtype": self.dtype,
            **self.latent.to_dict(),
            "tokenizer": {
                "path": self.tokenizer.path,
                "fingerprint": self.tokenizer.fingerprint,
            },
            **self.statistics,
        }

    @property
    def statistics(self) -> dict[str, dict[str, list[float]]]:
        """Mean and std as plain lists, {"mean": {"xy": [...], ...}, "std": ...}."""
        return {
            name: {plane: list(values[plane]) for plane in self.latent.names}
            for name, values in (("mean", self.mean), ("std", self.std))
        }

    def check_tokenizer(self, tokenizer: TokenizerId, location: str) -> None:
        """Raise DataError unless the latents in `location` are of this tokenizer."""
        if self.tokenizer.fingerprint != tokenizer.fingerprint:
            raise DataError(
                f"{location} was encoded by another tokenizer ({_named(self.tokenizer)}) than "
                f"{_named(tokenizer)}: name that one, or encode the video again with this one"
            )


@dataclass(frozen=True)
class LatentReader:
    """Reads the latents of one tokenizer as a mapping of

    each plane's name  (rows, columns, channels) float32, as the tokenizer gave it: not normalised
    num_frames         how many frames of the clip are real
    label              the class, or -1
    """

    spec: LatentSpec
    classes: int | None = None
    """Labels must be below it. Here and not where they are used, because all ranks of a run hear of
    what reading finds."""

    def check(self, index: ShardIndex, location: str) -> None:
        """Raise DataError unless these shards hold latents of the same tokenizer and shape.

        Their statistics may differ: in a mixture those of `spec` hold for all.
        """
        found = LatentSpec.of(index, location)
        found.check_tokenizer(self.spec.tokenizer, location)
        difference = found.latent.difference(self.spec.latent)
        if difference is not None:
            raise DataError(
                f"{location} holds {difference} as the first shards; encode it again: python "
                "scripts/encode.py --help"
            )

    @property
    def frames(self) -> int:
        """Of a clip that was encoded; a shorter one was padded."""
        return self.spec.video.frames

    def __call__(self, sample: StoredSample, start: int = 0) -> Mapping[str, Any]:
        """The sample, which is one clip: it starts at 0.

        Raises:
            UnreadableSample: damaged, of another shape, or not finite.
            DataError: of a class that is not below `classes`.
        """
        frames = sample.entry.frames
        if not 1 <= frames <= self.spec.video.frames:
            raise UnreadableSample(
                f"it is of {frames} frames, not of 1 to {self.spec.video.frames}"
            )
        if EXTENSION not in sample.entry.files:
            raise UnreadableSample(
                f"it has no planes, only .{' .'.join(sorted(sample.entry.files))}"
            )
        planes = read_planes(sample.read(EXTENSION), self.spec.latent.shapes)
        return {**planes, "num_frames": frames, "label": self._label(sample)}

    def _label(self, sample: StoredSample) -> int:
        label = label_of(read_info(sample))
        if self.classes is not None and label >= self.classes:
            raise DataError(
                f"{sample.entry.key} is of class {label}, but model.classes is {self.classes}, and "
                "the first class is 0; raise it, or set it to 0 to train without classes"
            )
        return label

    def blank(self) -> Mapping[str, Any]:
        """Planes of zeros."""
        shapes = self.spec.latent.shapes
        planes = {plane: np.zeros(shape, np.float32) for plane, shape in shapes.items()}
        return {**planes, "num_frames": self.spec.video.frames, "label": NO_LABEL}


def is_latent(index: ShardIndex) -> bool:
    """Whether the shards hold latents and not video."""
    return index.codec["name"] == CODEC


def read_planes(data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> Planes:
    """The planes of a KEY.safetensors in float32; bfloat16 is its upper half.

    Raises:
        UnreadableSample: damaged, other tensors than planes of these shapes, or not finite.
    """
    try:
        stored = dict(deserialize(data))
    except Exception as error:
        raise UnreadableSample(f"its planes are damaged ({error})") from None
    if stored.keys() != shapes.keys():
        raise UnreadableSample(f"it holds the tensors {', '.join(sorted(stored))}, not its planes")
    return {plane: _plane(plane, stored[plane], shape) for plane, shape in shapes.items()}


def _plane(name: str, stored: Mapping[str, Any], shape: tuple[int, ...]) -> NDArray[np.float32]:
    kind = _STORED_TYPES.get(stored["dtype"])
    if kind is None:
        raise UnreadableSample(f"plane {name} is {stored['dtype']}, neither BF16 nor F32")
    if tuple(stored["shape"]) != shape:
        raise UnreadableSample(f"plane {name} has shape {tuple(stored['shape'])}, not {shape}")
    values = np.frombuffer(stored["data"], kind)
    if stored["dtype"] == "BF16":
        values = (values.astype("<u4") << 16).view("<f4")
    if not np.isfinite(values).all():
        raise UnreadableSample(f"plane {name} holds values that are not finite")
    return values.astype(np.float32, copy=False).reshape(shape)


def _spec(video: VideoSpec, codec: Mapping[str, Any]) -> LatentSpec:
    if codec["dtype"] not in get_args(PlaneType):
        raise ValueError(f"dtype {codec['dtype']!r} is none of {', '.join(get_args(PlaneType))}")
    latent = LatentShape.from_dict(codec)
    size = latent.numbers * (2 if codec["dtype"] == "bfloat16" else 4)
    if size > MOST_FILE_BYTES:
        raise ValueError(f"its planes have {size} bytes, more than {MOST_FILE_BYTES}")
    tokenizer = codec["tokenizer"]
    if not (isinstance(tokenizer["path"], str) and isinstance(tokenizer["fingerprint"], str)):
        raise ValueError("the tokenizer's path or fingerprint is no text")
    return LatentSpec(
        video=video,
        dtype=codec["dtype"],
        latent=latent,
        tokenizer=TokenizerId(tokenizer["path"], tokenizer["fingerprint"]),
        mean=_channel_values(codec["mean"], "mean", latent.channels),
        std=_channel_values(codec["std"], "std", latent.channels),
    )


def _channel_values(
    stored: Mapping[str, Any], name: str, channels: Mapping[str, int]
) -> ChannelValues:
    values = {plane: tuple(float(value) for value in stored[plane]) for plane in channels}
    for plane, numbers in values.items():
        if len(numbers) != channels[plane] or not all(map(math.isfinite, numbers)):
            raise ValueError(f"{name}.{plane} is not {channels[plane]} finite numbers")
        if name == "std" and min(numbers) <= 0:
            raise ValueError(f"std.{plane} is not above 0")
    return values


def _named(tokenizer: TokenizerId) -> str:
    return f"{tokenizer.path}, fingerprint {tokenizer.fingerprint[:12]}"
