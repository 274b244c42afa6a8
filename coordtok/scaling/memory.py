"""Memory of one rank under ZeRO, by what it holds: a formula, without torch.

Parameters, gradients and states are sharded as DeepSpeed does: stage 1 shards masters and states,
stage 2 gradients too, stage 3 weights too. Masters, both moments (Muon: one momentum of its
matrices) and the EMA are float32 in any case. Most is held either when a backward pass begins
(activations, gathered weights, the bucket that gradients are summed in, which DeepSpeed makes as
large as the JSON says, however small the model is) or in the update (float32 gradients and the
optimiser's temporaries).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from coordtok.config.models import DiTModelConfig, ModelConfig
from coordtok.config.schema import RunConfig
from coordtok.config.sharding import precision_of, read_sharding
from coordtok.errors import ConfigError
from coordtok.scaling.activations import activation_bytes
from coordtok.scaling.parameters import matrices, parameters, sizes

FLOAT = 4
_BUCKET = 5e8
"""Numbers of a bucket of gradients and of gathered weights, DeepSpeed's default."""
_LIVE = _REUSE = 1e9
"""Numbers that stage 3 keeps gathered at most, and those between two uses of a weight up to which
it stays gathered, DeepSpeed's defaults."""
_PREFETCH = 5e7
_PERSISTENCE = 1e5
"""Numbers of a tensor up to which stage 3 keeps it whole, DeepSpeed's default."""
_SUB_GROUP = 1e9
"""Numbers that stage 3 updates at once, DeepSpeed's default."""
_MUON_AT_ONCE = 2**26
"""Numbers of matrices that Muon orthogonalises at once (train.muon), in three copies."""
TEMPORARIES = {"cpu": 2, "cuda": 0}
"""Copies of what it updates that torch's AdamW makes: a root and a quotient; none where it is one
kernel (train.optim)."""


@dataclass(frozen=True)
class Zero:
    """How a DeepSpeed JSON shards, and at what precision."""

    stage: int
    number: int
    """Bytes of a number of the weights that compute: 2 for bfloat16, 4 for float32."""
    gradient: int | None = None
    """Bytes of a number that gradients are accumulated in; None: 4, but where each update has one
    micro-batch, and nothing is accumulated, those of weights."""
    sent: int = FLOAT
    """Bytes of a number in which they are sent and summed over ranks."""
    offload_optimizer: bool = False
    offload_param: bool = False
    bucket: float = _BUCKET
    live: float = _LIVE
    reuse: float = _REUSE
    persistence: float = _PERSISTENCE
    source: str = ""

    @classmethod
    def load(cls, name_or_path: str, kind: str = "cuda") -> "Zero":
        """Of the JSON of that name or path, on a device of that kind, "cuda" or "cpu".

        Raises:
            ConfigError: as `read_sharding`, or no stage from 0 to 3.
        """
        return cls.of(read_sharding(name_or_path), name_or_path, kind)

    @classmethod
    def of(cls, config: Mapping[str, Any], source: str, kind: str = "cuda") -> "Zero":
        """Of what a DeepSpeed JSON holds.

        Raises:
            ConfigError: no stage from 0 to 3.
        """
        section = _section(config, "zero_optimization")
        stage = section.get("stage")
        if stage not in (0, 1, 2, 3):
            raise ConfigError(
                f"zero_optimization.stage is {stage} in {source}; it must be 0, 1, 2 or 3"
            )
        number = 2 if precision_of(config, kind == "cuda") == "bfloat16" else FLOAT
        accumulated = _section(config, "data_types").get("grad_accum_dtype", "as weights")
        gradients = {"auto": None, "fp32": FLOAT, "bf16": 2}
        sent = {"fp32": FLOAT, "bf16": 2}.get(config.get("communication_data_type", ""), number)
        return cls(
            stage,
            number,
            gradients.get(accumulated, number),
            sent,
            _section(section, "offload_optimizer").get("device", "none") != "none",
            _section(section, "offload_param").get("device", "none") != "none",
            _number(section, "reduce_bucket_size", _BUCKET),
            _number(section, "stage3_max_live_parameters", _LIVE),
            max(
                _number(section, "stage3_max_reuse_distance", _REUSE),
                # What is fetched ahead is not released before its use.
                2 * _number(section, "stage3_prefetch_bucket_size", _PREFETCH),
            ),
            _number(section, "stage3_param_persistence_threshold", _PERSISTENCE),
            source,
        )

    def settled(self, accumulates: bool) -> "Zero":
        """With the bytes of a gradient that are left to whether gradients are accumulated."""
        if self.gradient is not None:
            return self
        return replace(self, gradient=FLOAT if accumulates else self.number)

    @property
    def gradient_bytes(self) -> int:
        """Of a number that gradients are accumulated in; of one left open, as nothing is."""
        return self.gradient or self.number

    @property
    def keeps_both_gradients(self) -> bool:
        """Whether DeepSpeed keeps all gradients on each rank, in both formats: its BF16_Optimizer,
        for float32 gradients of bfloat16 weights at stage 1."""
        on_device = self.stage == 1 and not self.offload_optimizer
        return on_device and self.number == 2 and self.gradient == FLOAT


def rank_memory(
    run: RunConfig, zero: Zero, ranks: int, micro_batch: int, kind: str = "cuda"
) -> dict[str, float]:
    """Bytes on one rank's device when most is held, by what they are for. kind: "cuda" or "cpu"."""
    zero = zero.settled(run.train.global_batch > ranks * micro_batch)
    backward = _backward(run, zero, ranks, micro_batch)
    update = {"update": _update(run, zero, ranks, kind)}
    most = max(backward, update, key=lambda parts: sum(parts.values()))
    return {**rank_states(run, zero, ranks), **most}


def rank_states(run: RunConfig, zero: Zero, ranks: int) -> dict[str, float]:
    """What of it stays from update to update."""
    count = sum(parameters(run.model).values())
    owned = _share(count, ranks, zero, 1)
    kept = 0.0 if zero.offload_optimizer else float(FLOAT)
    weights = 0.0 if zero.offload_param else zero.number * _share(count, ranks, zero, 3)
    found = {
        "weights": weights,
        "masters": kept * owned,
        "optimizer": kept * _share(states(run), ranks, zero, 1),
        "EMA": kept * owned if run.ema.decay > 0 else 0.0,
    }
    if zero.keeps_both_gradients:
        found["gradients"] = (FLOAT + zero.number) * float(count)
    if zero.stage == 3:
        whole = [each for each in sizes(run.model) if each <= zero.persistence]
        found["small weights, whole"] = zero.number * sum(whole) if ranks > 1 else 0.0
        found["gradients"] = 0.0 if zero.offload_optimizer else zero.gradient_bytes * owned
        found["bucket"] = zero.sent * zero.bucket
    return found


def _backward(run: RunConfig, zero: Zero, ranks: int, micro_batch: int) -> dict[str, float]:
    """What is held beside the states when a backward pass begins, the last of an update."""
    count = sum(parameters(run.model).values())
    found = {
        "activations": micro_batch * activation_bytes(run, zero.number),
        "clips": float(micro_batch * input_bytes(run.model)),
    }
    if zero.stage == 3:
        large = sum(each for each in sizes(run.model) if each > zero.persistence)
        gathered = min(large, zero.live, zero.reuse / 2)
        found["gathered"] = zero.number * gathered if ranks > 1 else 0.0
        return found
    if zero.keeps_both_gradients:
        return found
    accumulated = (
        _share(count, ranks, zero, 2) if run.train.global_batch > ranks * micro_batch else 0
    )
    found["gradients"] = zero.gradient_bytes * accumulated
    found["bucket"] = zero.number * zero.bucket if zero.stage else 0.0
    if zero.sent != zero.number and zero.stage and ranks > 1:
        found["bucket"] += zero.sent * min(zero.bucket, count)  # copied to be sent
    return found


def _update(run: RunConfig, zero: Zero, ranks: int, kind: str) -> float:
    """What is held beside the states in an update: nothing where the host makes it."""
    if zero.offload_optimizer:
        return 0.0
    owned = _share(sum(parameters(run.model).values()), ranks, zero, 1)
    if zero.stage == 3:
        owned = min(owned, _SUB_GROUP)
    gradients = 0.0 if zero.keeps_both_gradients else FLOAT * owned
    if run.optim.name != "muon":
        return gradients + FLOAT * owned * TEMPORARIES[kind]
    of_matrices = sum(rows * columns for rows, columns in matrices(run.model))
    return gradients + FLOAT * 3 * min(of_matrices, _MUON_AT_ONCE)


def host_memory(run: RunConfig, zero: Zero, ranks: int, micro_batch: int) -> float:
    """Bytes of the host that one rank's offloaded parts take."""
    zero = zero.settled(run.train.global_batch > ranks * micro_batch)
    owned = sum(parameters(run.model).values()) / ranks
    total = zero.number * owned if zero.offload_param else 0.0
    if zero.offload_optimizer:
        total += FLOAT * (2 * owned + states(run) / ranks) + zero.gradient_bytes * owned
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


def _section(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _number(config: dict[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    return float(value) if isinstance(value, int | float) else default
