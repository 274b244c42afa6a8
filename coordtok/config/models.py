"""The kinds of models with all their sizes, in the axis order (t, y, x): frames, rows, columns."""

from dataclasses import dataclass, replace
from math import prod
from typing import Annotated, Any, Literal

from coordtok.config.ranges import Range, Section, require, require_divides
from coordtok.geometry.latent import AXES, MOST_CONTENT_PLANES, LatentShape, Size3

MOST_ALONG_AXIS = 65_536
"""Frames of a clip, nodes of a plane, sides of patches; and channels of a plane."""
MOST_PIXELS = 16_384
"""Along a side of a frame."""
MOST_LAYERS, MOST_WIDTH, MOST_HEADS = 1000, 131_072, 4096
"""Beyond the largest transformers by about ten times: what is larger is a mistake."""

_PLANE_SIZE: Size3 = (32, 16, 16)
_PLANE_CHANNELS = 8
"""Of the paper's tokenizers."""

NO_LABEL = -1
"""The label of a clip of no class, and of one whose class a generator is not to know."""


@dataclass(frozen=True)
class TokenizerModelConfig(Section, at="model"):
    """A CoordTok autoencoder (docs/method.md, "Main configuration"). Defaults are size L."""

    name: Literal["coordtok"] = "coordtok"
    """Which kind of model the section describes; may be left out for a tokenizer."""
    frames: Annotated[int, Range(1, MOST_ALONG_AXIS)] = 128
    """Frames T of a clip."""
    height: Annotated[int, Range(1, MOST_PIXELS)] = 128
    """Rows H of a frame, in pixels."""
    width: Annotated[int, Range(1, MOST_PIXELS)] = 128
    """Columns W of a frame, in pixels."""
    video_patch: Annotated[Size3, Range(1, MOST_ALONG_AXIS)] = (8, 16, 16)
    """Frames, rows and columns that become one video token of the encoder."""
    plane_size: Annotated[Size3, Range(1, MOST_ALONG_AXIS)] = _PLANE_SIZE
    """T', H', W' of the planes: xy is (H', W'), yt is (T', H'), xt is (T', W')."""
    plane_channels: Annotated[int | Size3, Range(1, MOST_ALONG_AXIS)] = _PLANE_CHANNELS
    """Numbers C at each position of a plane; or those of xy, yt and xt."""
    content_planes: Annotated[int, Range(1, MOST_CONTENT_PLANES)] = 1
    """Planes xy, each of an equal part of the clip's time: one says little of a long clip."""
    plane_patch: Annotated[Size3, Range(1, MOST_ALONG_AXIS)] = (16, 8, 8)
    """Extent along t, y and x of the part of a plane that one query token becomes."""
    decoder_patch: Annotated[Size3, Range(1, MOST_ALONG_AXIS)] = (1, 8, 8)
    """Frames, rows and columns of pixels that one queried coordinate is decoded to."""
    dim: Annotated[int, Range(1, MOST_WIDTH)] = 1024
    """Width D of every transformer."""
    heads: Annotated[int, Range(1, MOST_HEADS)] = 16
    """Attention heads; they divide `dim`."""
    mlp_ratio: Annotated[float, Range(above=0, most=64)] = 4.0
    """Width of a block's MLP, in units of `dim`."""
    video_layers: Annotated[int, Range(0, MOST_LAYERS)] = 8
    """Layers of the encoder's transformer over video tokens."""
    plane_layers: Annotated[int, Range(0, MOST_LAYERS)] = 24
    """Layers of the encoder's cross-self transformer, whose queries become the planes."""
    decoder_layers: Annotated[int, Range(0, MOST_LAYERS)] = 24
    """Layers of the decoder's transformer over the queried coordinates."""
    plane_start: Literal["learned", "pooled"] = "learned"
    """What the encoder's query tokens are at first: learned, or the video's features averaged over
    the axis that their plane lacks, for which they must lie on the grid of video tokens."""
    zero_init: bool = False
    """Start every block, and the pixels, by adding nothing."""
    linear_path: bool = False
    """Add a linear codec to the planes and to what is decoded of them, fitted to training clips
    before the first step (docs/recipe.md)."""
    linear_reach: Annotated[int, Range(0, 3)] = 0
    """Rows and columns of a plane around a patch's own node from whose nodes its linear path is
    decoded too: 1 takes blocks away where cells meet."""
    legacy_padding: bool = False
    """Encode short clips as the authors' release does: only for its weights (models.legacy)."""

    def check(self) -> None:
        require_divides("the video", self.video_size, "video_patch", self.video_patch)
        require_divides("the video", self.video_size, "decoder_patch", self.decoder_patch)
        require_divides("model.plane_size", self.plane_size, "plane_patch", self.plane_patch)
        self._check_content_planes()
        _check_width(self)
        require(
            self.linear_path or not self.linear_reach,
            f"model.linear_reach is {self.linear_reach} and there is no linear path; set "
            "model.linear_path=true",
        )
        if self.linear_path:
            self._check_linear_path()
        if self.plane_start == "pooled":
            self._check_pooled_start()

    def _check_content_planes(self) -> None:
        """Each is of whole patches of the decoder, and where it pools tubelets, of whole ones."""
        parts = {"decoder_patch": self.decoder_patch}
        if self.plane_start == "pooled":
            parts["video_patch"] = self.video_patch
        for name, (depth, _, _) in parts.items():
            steps = self.frames // depth
            require(
                steps % self.content_planes == 0,
                f"model.content_planes is {self.content_planes}, which does not divide the {steps} "
                f"steps along t that model.{name} makes of the clip",
            )
        require(
            self.content_planes == 1 or self.content_planes * self.frames <= 1 << 23,
            f"model.content_planes is {self.content_planes} for {self.frames} frames, whose times "
            "are too close to be told apart; take fewer",
        )

    def _check_pooled_start(self) -> None:
        for axis, pixels, tubelet, nodes, patch in zip(
            AXES, self.video_size, self.video_patch, self.plane_size, self.plane_patch
        ):
            tokens, tubelets = nodes // patch, pixels // tubelet
            require(
                tokens == tubelets,
                f"model.plane_patch makes {tokens} query tokens along {axis} where "
                f"model.video_patch makes {tubelets} video tokens; with model.plane_start=pooled "
                "they must be as many",
            )

    def _check_linear_path(self) -> None:
        """Behind each node of a plane lie whole pixels and whole decoder patches."""
        require_divides("the video", self.video_size, "plane_size", self.plane_size)
        for axis, pixels, nodes, patch in zip(
            AXES, self.video_size, self.plane_size, self.decoder_patch
        ):
            cell = pixels // nodes
            require(
                cell % patch == 0,
                f"model.plane_size has {nodes} nodes along {axis}, {cell} pixels or frames each, "
                f"but model.decoder_patch is {patch}; with model.linear_path it must divide them",
            )

    @property
    def video_size(self) -> Size3:
        return (self.frames, self.height, self.width)

    @property
    def latent(self) -> LatentShape:
        """The planes of a clip, in the parts that the encoder's query tokens become."""
        return LatentShape.triplane(
            self.plane_size, self.plane_channels, self.plane_patch, self.content_planes
        )

    @property
    def projects_memory(self) -> bool:
        """Whether query tokens read keys and values that are made of the video tokens, or, where
        that is less than half of the operations, the video tokens themselves."""
        tokens, dim = sum(self.latent.tokens), self.dim
        memory = prod(self.video_size) // prod(self.video_patch)
        projected = memory * dim * (2 * dim + 2 * tokens)
        directly = tokens * dim * (2 * dim + 2 * self.heads * memory)
        return 2 * directly >= projected


@dataclass(frozen=True)
class DiTModelConfig(Section, at="model"):
    """A diffusion transformer on a tokenizer's planes (docs/method.md, "Generator").

    Defaults are CoordTok-SiT-L/2.
    """

    name: Literal["dit"] = "dit"
    """Which kind of model the section describes; `dit` must be given."""
    plane_size: Annotated[Size3 | None, Range(1, MOST_ALONG_AXIS)] = None
    """T', H', W' of the tokenizer's planes; null takes those of the latents trained on, and without
    any the paper's, 32, 16, 16."""
    plane_channels: Annotated[int | Size3 | None, Range(1, MOST_ALONG_AXIS)] = None
    """Numbers C at each position of the tokenizer's planes; null likewise, the paper's being 8."""
    content_planes: Annotated[int | None, Range(1, MOST_CONTENT_PLANES)] = None
    """Planes xy of the tokenizer, each of an equal part of the time; null likewise, else 1."""
    patch: Annotated[int, Range(1, MOST_ALONG_AXIS)] = 2
    """Rows and columns of a plane that become one token."""
    dim: Annotated[int, Range(1, MOST_WIDTH)] = 1024
    """Width D of the transformer."""
    heads: Annotated[int, Range(1, MOST_HEADS)] = 16
    """Attention heads; they divide `dim`."""
    layers: Annotated[int, Range(1, MOST_LAYERS)] = 24
    """Transformer blocks."""
    mlp_ratio: Annotated[float, Range(above=0, most=64)] = 4.0
    """Width of a block's MLP, in units of `dim`."""
    classes: Annotated[int, Range(0, 1_000_000)] = 0
    """Class labels are 0 to classes - 1; 0 is an unconditional model."""
    label_dropout: Annotated[float, Range(0, below=1)] = 0.1
    """Share of clips trained without their label, for classifier-free guidance."""

    def check(self) -> None:
        size = self.plane_size or _PLANE_SIZE
        require_divides("model.plane_size", size, "patch", (self.patch,) * 3)
        _check_width(self)

    @property
    def latent(self) -> LatentShape:
        """The planes of the tokenizer, in the patches that become tokens."""
        size, channels = self.plane_size or _PLANE_SIZE, self.plane_channels or _PLANE_CHANNELS
        return LatentShape.triplane(size, channels, (self.patch,) * 3, self.content_planes or 1)

    def for_latent(self, found: LatentShape) -> "DiTModelConfig":
        """The same model with what it leaves open as the latents `found` have it."""
        keys = found.to_dict()
        if "plane_size" not in keys:
            return self
        size, channels = tuple(keys["plane_size"]), keys["channels"]
        channels = tuple(channels) if isinstance(channels, list) else channels
        open_keys = triplane_keys(self.plane_size or size, self.plane_channels or channels)
        # Null stays null where there is one: so it is in runs and exports of before the key.
        content_planes = self.content_planes or keys.get("content_planes")
        return replace(self, **open_keys, content_planes=content_planes)

    def check_latent(self, found: LatentShape, location: str) -> None:
        """Raise ConfigError unless the model takes the latents in `location`, which are `found`."""
        keys = found.to_dict()
        fix = "train another kind of model on them"
        if "plane_size" in keys:
            size, channels = (str(keys[key]).replace(" ", "") for key in ("plane_size", "channels"))
            fix = f"set model.plane_size={size} and model.plane_channels={channels}"
            if (content_planes := keys.get("content_planes", 1)) != (self.content_planes or 1):
                fix += f" and model.content_planes={content_planes}"
        difference = found.difference(self.latent)
        require(difference is None, f"{location} holds {difference} as the model takes; {fix}")


def triplane_keys(size: Size3, channels: int | Size3) -> dict[str, Any]:
    """The keys of a model section whose `latent` is the paper's planes of `size` (T', H', W'), one
    content plane unless it says more."""
    return {"plane_size": size, "plane_channels": channels}


def _check_width(model: "ModelConfig") -> None:
    require(
        model.dim % model.heads == 0,
        f"model.dim is {model.dim}, which model.heads {model.heads} does not divide",
    )
    require(
        int(model.dim * model.mlp_ratio) > 0,
        f"model.mlp_ratio is {model.mlp_ratio}; with model.dim {model.dim} it leaves no width",
    )


ModelConfig = TokenizerModelConfig | DiTModelConfig
"""A section's `name` says which of them it holds; without one it is a tokenizer."""
