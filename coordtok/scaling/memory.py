"""Memory of one rank under ZeRO, by what it holds: a formula, without torch.

Parameters, gradients and states are sharded as DeepSpeed does: stage 1 shards masters and states,
stage 2 gradients too, stage 3 weights too, of which what a few layers need is gathered for a while.
Masters, both moments (Muon: one momentum of its matrices) and the EMA are float32 in any case.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

from coordtok.config.models import DiTModelConfig, ModelConfig
from coordtok.config.schema import RunConfig
from coordtok.config.sharding import read_sharding
from coordtok.errors import ConfigError
from coordtok.scaling.activations import activation_bytes
from coordtok.scaling.parameters import matrices, parameters

FLOAT = 4
_BUCKET = 5e8
"""Numbers of a bucket of gradients and of gathered weights, DeepSpeed's default."""
_LIVE = 1e9
"""Numbers that stage 3 keeps gathered at most, DeepSpeed's default."""


@dataclass(frozen=True)
class Zero:
    """How a DeepSpeed JSON shards, and at what precision."""

    stage: int
    number: int
    """Bytes of a number of the weights that compute: 2 for bfloat16, 4 for float32."""
    offload_optimizer: bool = False
    offload_param: bool = False
    bucket: float = _BUCKET
    live: float = _LIVE
    source: str = ""

    @classmethod
    def load(cls, name_or_path: str) -> "Zero":
        """
        Raises:
            ConfigError: as `read_sharding`, or no stage from 0 to 3.
        """
        config = read_sharding(name_or_path)
        section = _section(config, "zero_optimization")
        stage = section.get("stage")
        if stage not in (0, 1, 2, 3):
            raise ConfigError(
                f"zero_optimization.stage is {stage} in {name_or_path}; it must be 0, 1, 2 or 3"
            )
        return cls(
            stage,
            2 if _section(config, "bf16").get("enabled", False) else FLOAT,
            _section(section, "offload_optimizer").get("device", "none") != "none",
            _section(section, "offload_param").get("device", "none") != "none",
            _number(section, "reduce_bucket_size", _BUCKET),
            _number(section, "stage3_max_live_parameters", _LIVE),
            name_or_path,
        )


def rank_memory(run: RunConfig, zero: Zero, ranks: int, micro_batch: int) -> dict[str, float]:
    """Bytes on one rank's device, by what they are for."""
    count = sum(parameters(run.model).values())
    return {
        **rank_states(run, zero, ranks),
        "activations": micro_batch * activation_bytes(run, zero.number),
        "gathered": zero.number * min(zero.live, count) if zero.stage == 3 and ranks > 1 else 0.0,
        "buckets": zero.number * min(zero.bucket, count) if zero.stage >= 2 and ranks > 1 else 0.0,
        "clips": micro_batch * input_bytes(run.model),
    }


def rank_states(run: RunConfig, zero: Zero, ranks: int) -> dict[str, float]:
    """What of it stays from update to update."""
    count = sum(parameters(run.model).values())
    owned = _share(count, ranks, zero, 1)
    kept = 0.0 if zero.offload_optimizer else float(FLOAT)
    return {
        "weights": 0.0 if zero.offload_param else zero.number * _share(count, ranks, zero, 3),
        "gradients": zero.number * _share(count, ranks, zero, 2),
        "masters": kept * owned,
        "optimizer": kept * _share(states(run), ranks, zero, 1),
        "EMA": kept * owned if run.ema.decay > 0 else 0.0,
    }


def host_memory(run: RunConfig, zero: Zero, ranks: int) -> float:
    """Bytes of the host that one rank's offloaded parts take."""
    owned = sum(parameters(run.model).values()) / ranks
    total = zero.number * owned if zero.offload_param else 0.0
    if zero.offload_optimizer:
        total += FLOAT * (2 * owned + states(run) / ranks) + zero.number * owned
    return total


def states(run: RunConfig) -> float:
    """Numbers that the optimiser keeps beside the masters."""
    count = sum(parameters(run.model).values())
    if run.optim.name != "muon":
        return 2.0 * count
    of_matrices = sum(rows * columns for rows, columns in matrices(run.model))
    return 2.0 * (count - of_matrices) + of_matrices


def checkpoint_bytes(run: RunConfig) -> float:
    """Of one checkpoint, all ranks together: masters, the optimiser's states and the EMA."""
    weights = sum(parameters(run.model).values()) * (2 if run.ema.decay > 0 else 1)
    return FLOAT * (weights + states(run))


def input_bytes(model: ModelConfig) -> int:
    """Of a clip before the model makes anything of it: uint8 pixels, or a generator's latent and
    its noise in float32."""
    if isinstance(model, DiTModelConfig):
        return 2 * FLOAT * model.latent.numbers
    return 3 * prod(model.video_size)


def _share(numbers: float, ranks: int, zero: Zero, sharded_from: int) -> float:
    return numbers / ranks if zero.stage >= sharded_from else numbers


def _section(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _number(config: dict[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    return float(value) if isinstance(value, int | float) else default
