"""From a DeepSpeed JSON and a run's config to a DeepSpeed engine.

The JSON says how to shard and at what precision. Facts of the YAML stand there as "auto" (or not at
all) and are filled here; the same fact given in both is an error. DeepSpeed itself is named only
inside `coordtok.train`.
"""

import copy
import difflib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import deepspeed
import torch
from deepspeed.runtime import bf16_optimizer
from deepspeed.utils import logger as deepspeed_logger
from deepspeed.utils import set_z3_leaf_module
from torch import nn

from coordtok import distributed
from coordtok.config.schema import RunConfig
from coordtok.config.sharding import (
    SECTIONS,
    precision_left_open,
    precision_of,
    read_sharding,
)
from coordtok.errors import ConfigError, one_line
from coordtok.models.layers import block_stacks
from coordtok.ops import tf32
from coordtok.ops.attention import choose_kernel
from coordtok.train.masters import Masters
from coordtok.train.optim import attach_matrices, build_optimizer

STAGES = (1, 2, 3)
COMPILER = "inductor"
"""The backend of torch.compile."""


@dataclass(frozen=True)
class Sharding:
    """A DeepSpeed configuration with every fact of the run filled in."""

    config: dict[str, Any]
    source: str
    is_open: bool = False
    """Whether the JSON leaves the precision to the device, or to the run that is resumed."""

    def resuming(self, precision: str) -> "Sharding":
        """At the precision of a checkpoint, where the JSON leaves it open."""
        if not self.is_open:
            return self
        bf16 = {**self.config["bf16"], "enabled": precision == "bfloat16"}
        return replace(self, config={**self.config, "bf16": bf16})

    @property
    def stage(self) -> int:
        return int(self.config["zero_optimization"]["stage"])

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights that compute; optimiser and EMA are fp32 in any case."""
        bf16 = self.config.get("bf16", {}).get("enabled", False)
        return torch.bfloat16 if bf16 else torch.float32

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def load_sharding(path: str, run: RunConfig, world_size: int) -> Sharding:
    """The DeepSpeed JSON of that path or name, completed for `run` on `world_size` ranks of this
    device."""
    config = read_sharding(path)
    micro_batch = rank_batch(run, world_size)
    accumulation = run.train.global_batch // (world_size * micro_batch)
    is_open = _fill_precision(config, accumulation)
    owned = {
        "train_batch_size": (run.train.global_batch, "train.global_batch"),
        "train_micro_batch_size_per_gpu": (micro_batch, "train.micro_batch"),
        "gradient_accumulation_steps": (accumulation, "train.global_batch and train.micro_batch"),
        "gradient_clipping": (run.optim.grad_clip, "optim.grad_clip"),
    }
    for key, (value, home) in owned.items():
        given = config.get(key, "auto")
        if given != "auto":
            raise ConfigError(
                f"{key} is {given} in {path}, but its home is {home} of the YAML ({value} here); "
                f'write "auto" in the JSON'
            )
        config[key] = value
    for key, home in (("optimizer", "optim.*"), ("scheduler", "optim.schedule")):
        if key in config:
            raise ConfigError(f"{key} in {path} has its home in {home} of the YAML; remove it")
    _check(config, path)
    config["zero_allow_untested_optimizer"] = True
    if "bf16" in config:  # in it ZeRO-1 and 2 take any update by default
        config["bf16"].setdefault("check_grad_overflow", True)
    if run.train.compile:  # its own linear function, which breaks graphs, is for eager blocks
        config["zero_optimization"].setdefault("memory_efficient_linear", False)
    config.setdefault("steps_per_print", 10**12)
    return Sharding(config, path, is_open)


def _fill_precision(config: dict[str, Any], accumulation: int) -> bool:
    """Give the precisions that the JSON leaves open their values; whether that of weights was.

    Gradients are accumulated in fp32, where any are: then DeepSpeed's BF16_Optimizer stands in for
    its ZeRO-1, and keeps all of them on each rank.
    """
    is_open = precision_left_open(config)
    if is_open:
        on_gpu = distributed.device().type == "cuda"
        config["bf16"]["enabled"] = precision_of(config, on_gpu) == "bfloat16"
    types = config.get("data_types", {})
    if types.get("grad_accum_dtype") == "auto":
        types["grad_accum_dtype"] = "fp32" if accumulation > 1 else None
    return is_open


def _check(config: dict[str, Any], path: str) -> None:
    for key in config:
        near = difflib.get_close_matches(key, SECTIONS, 1, cutoff=0.7)
        if key not in SECTIONS and near:
            raise ConfigError(f"unknown key {key} in {path}; did you mean {near[0]}")
    stage = config.get("zero_optimization", {}).get("stage")
    if stage not in STAGES:
        raise ConfigError(f"zero_optimization.stage is {stage} in {path}; it must be 1, 2 or 3")
    if config.get("fp16", {}).get("enabled"):
        raise ConfigError(
            f"fp16 is enabled in {path}; its skipped steps break exact resume: use bf16 or fp32"
        )
    for key in ("offload_optimizer", "offload_param"):
        offload = config["zero_optimization"].get(key)
        if isinstance(offload, dict) and offload.get("device") == "nvme":
            raise ConfigError(
                f"zero_optimization.{key}.device is nvme in {path}, where checkpoints read and "
                "write no weights; choose cpu"
            )
    for key in _auto_keys(config):
        raise ConfigError(f'{key} is "auto" in {path}, but nothing in the YAML fills it')


def _auto_keys(tree: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        if isinstance(value, dict):
            found += _auto_keys(value, f"{prefix}{key}.")
        elif value == "auto":
            found.append(f"{prefix}{key}")
    return found


def check_compiled(run: RunConfig, sharding: Sharding, device: torch.device) -> None:
    """Refuse compiled blocks under ZeRO-3 on a GPU.

    On an H100 with torch 2.11 they trained wrongly, each time alike: a loss of 0.604 where eager
    blocks have 0.467 after two updates. On a CPU with torch 2.13 both are the same.
    """
    if run.train.compile and sharding.stage == 3 and device.type != "cpu":
        raise ConfigError(
            f"train.compile is true and the stage of {sharding.source} 3, which together train "
            "wrongly on GPUs: take zero1 or zero2, or train.compile=false"
        )


def rank_batch(run: RunConfig, world_size: int) -> int:
    """Clips per rank and forward pass; ranks x that must divide the global batch."""
    batch = run.train.global_batch
    if run.train.micro_batch is None:
        if batch % world_size:
            raise ConfigError(
                f"train.global_batch {batch} is not divisible by {world_size} ranks; "
                f"choose a multiple of {world_size}"
            )
        return batch // world_size
    if batch % (world_size * run.train.micro_batch):
        raise ConfigError(
            f"train.global_batch {batch} is not divisible by {world_size} ranks x "
            f"train.micro_batch {run.train.micro_batch}; change one of them"
        )
    return run.train.micro_batch


def _prepare_deepspeed() -> None:
    """Hand DeepSpeed the process group, keep its log to errors and its compiler out.

    Without a GPU it would compile a shared-memory op at start, and for offload an op that locks
    pages (DS_PIN_MEMORY_BACKEND=native) where no device reads them: minutes, a C++ compiler that
    outlives a killed run, and a lock that hangs the next start. Collectives over gloo and plain
    memory serve as well. The table of ops is given, because looking it up probes with a compiler.
    """
    deepspeed_logger.setLevel(logging.ERROR)
    bf16_optimizer.see_memory_usage = lambda *_, **__: None  # it prints, and resets peaks
    deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}
    if distributed.device().type == "cpu":
        os.environ["DS_PIN_MEMORY_BACKEND"] = "torch"
    deepspeed.init_distributed(verbose=False, auto_mpi_discovery=False)


def attention_kernel(run: RunConfig, sharding: Sharding) -> str:
    """Choose it for this process, by `train.attention`; its name. Raises `ConfigError`."""
    head = run.model.dim // run.model.heads
    return choose_kernel(run.train.attention, distributed.device(), sharding.dtype, head)


def build_engine(
    build_model: Callable[[], nn.Module], run: RunConfig, sharding: Sharding
) -> tuple["deepspeed.DeepSpeedEngine", Masters]:
    """The engine around `build_model()`, made shard by shard under ZeRO-3, and its masters.

    Every rank seeds alike and rank 0's values are kept, so the weights do not depend on the number
    of ranks, and a model larger than one rank's memory can be built.
    """
    check_compiled(run, sharding, distributed.device())
    _prepare_deepspeed()
    try:
        deepspeed.DeepSpeedConfig(copy.deepcopy(sharding.config))
    except Exception as error:  # each of its sections raises what it likes of odd values
        raise ConfigError(f"DeepSpeed refuses {sharding.source}: {one_line(error)}") from error
    torch.manual_seed(run.seed)
    tf32.allow_for_training()
    if run.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    attention_kernel(run, sharding)
    # Init takes the precision from the config: on a CPU, its `dtype` argument makes bf16 of fp32.
    with deepspeed.zero.Init(config_dict_or_path=sharding.config, enabled=sharding.stage == 3):
        model = build_model()
    stacks = block_stacks(model)
    if sharding.stage == 3:  # weights are gathered block by block, not layer by layer
        for block in chain.from_iterable(stacks):
            set_z3_leaf_module(block, True)
    if run.train.compile:
        for stack in stacks:
            stack.compile_blocks(COMPILER)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=build_optimizer(model, run.optim),
        config=sharding.config,
        dist_init_required=False,
    )
    masters = Masters(engine)
    attach_matrices(masters, engine.module)
    return engine, masters
