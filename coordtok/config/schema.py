"""What a run is: frozen dataclasses, each checked where it is declared.

The YAML says what to train; the DeepSpeed JSON says how to shard it and at what precision.
"""

from dataclasses import dataclass, field
from typing import Annotated

from coordtok.config.models import DiTModelConfig, ModelConfig, TokenizerModelConfig
from coordtok.config.ranges import Range, Section, require
from coordtok.config.sampling import FlowConfig, SamplerConfig
from coordtok.config.training import (
    DataConfig,
    EMAConfig,
    OptimConfig,
    PerceptualConfig,
    TensorBoardConfig,
    TrainConfig,
    WandbConfig,
)


@dataclass(frozen=True)
class RunConfig(Section):
    """One run: the whole YAML."""

    run_dir: str
    """Folder of the run: config, metrics, pictures and checkpoints."""
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    seed: Annotated[int, Range(0, (1 << 63) - 1)] = 0
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
    tensorboard: TensorBoardConfig = field(default_factory=TensorBoardConfig)

    def check(self) -> None:
        require(bool(self.run_dir), "run_dir is empty; name the folder of the run")
        require(
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
            require(
                value == getattr(TrainConfig, name),
                f"train.{name} is {value}; a generator sees no patches: remove it",
            )
        require(
            self.perceptual.weight == 0,
            f"perceptual.weight is {self.perceptual.weight}; a generator sees no pixels: remove it",
        )
        require(
            self.sampler.guidance == 1 or model.classes > 0,
            f"sampler.guidance is {self.sampler.guidance}; a model of no classes takes only 1",
        )

    def _check_tokenizer(self, model: TokenizerModelConfig) -> None:
        require(
            self.tokenizer is None,
            f"tokenizer is {self.tokenizer}; only a generator has one: use train.init_from to "
            "start from its weights",
        )
        for name, section in (("flow", FlowConfig), ("sampler", SamplerConfig)):
            require(
                getattr(self, name) == section(),
                f"{name} is set, but a tokenizer has none: remove it, or set model.name to dit",
            )
        require(
            self.perceptual.weight == 0 or self.train.whole_frames,
            f"perceptual.weight is {self.perceptual.weight}, but single patches make no picture; "
            "set train.whole_frames=true",
        )
        per_slab = (model.height // model.decoder_patch[1]) * (
            model.width // model.decoder_patch[2]
        )
        require(
            not self.train.whole_frames or self.train.points % per_slab == 0,
            f"train.points is {self.train.points}; with train.whole_frames it must be a multiple "
            f"of a frame's {per_slab} patches",
        )
