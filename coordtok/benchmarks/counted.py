"""What torch counts of a model: weights, operations, and bytes that autograd keeps.

Nothing is computed: models are built on the meta device, and fake tensors have shapes alone, so
that ten billion parameters take seconds. A linear path is decoded as on a GPU.
"""

from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from coordtok.config.models import DiTModelConfig, ModelConfig
from coordtok.config.schema import RunConfig
from coordtok.geometry.planes import unpack
from coordtok.models import linear_path
from coordtok.models.dit import TriplaneDiT
from coordtok.models.tokenizer import CoordTok


def built(config: ModelConfig) -> TriplaneDiT | CoordTok:
    """The model, on the meta device."""
    with torch.device("meta"):
        return TriplaneDiT(config) if isinstance(config, DiTModelConfig) else CoordTok(config)


def counted_flops(run: RunConfig) -> int:
    """Operations of a clip's forward and backward pass by torch's counter, with formulas for the
    CPU's fused attention, which it does not know."""
    model = built(run.model)
    model.set_activation_checkpointing(run.train.activation_checkpointing)
    with FakeTensorMode(), _as_on_a_gpu():
        _make_fake(model, torch.float32)
        with FlopCounterMode(display=False, custom_mapping=dict(_ATTENTION)) as counter:
            loss_of(model, run).backward()
    return counter.get_total_flops()


def kept_bytes(run: RunConfig, dtype: torch.dtype) -> int:
    """Bytes of all different memory that a forward pass and the loss of one clip save, weights left
    out."""
    model = built(run.model)
    storages: dict[int, torch.UntypedStorage] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages.setdefault(storage._cdata, storage)
        return tensor

    with FakeTensorMode(), _as_on_a_gpu():
        _make_fake(model, dtype)
        own = {each.untyped_storage()._cdata for each in model.parameters()}
        with saved_tensors_hooks(save, lambda tensor: tensor):
            loss_of(model, run)
    return sum(each.nbytes() for key, each in storages.items() if key not in own)


def _as_on_a_gpu() -> Any:
    return patch.object(linear_path, "BY_PLACE", frozenset())


def _forward(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(q, k, v))


def _backward(out: Any, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(out, q, k, v))


_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_ATTENTION: Mapping[Any, Callable[..., int]] = {_FUSED: _forward, _FUSED_BACKWARD: _backward}


def _make_fake(model: nn.Module, dtype: torch.dtype) -> None:
    for module in model.modules():
        for name, each in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(each.shape, dtype=dtype)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def loss_of(model: nn.Module, run: RunConfig) -> torch.Tensor:
    """A loss of what the model makes of one blank clip or latent."""
    if isinstance(run.model, DiTModelConfig):
        planes = unpack(torch.zeros(1, run.model.latent.numbers), run.model.latent)
        velocities = [each.square().mean() for each in model(planes, torch.zeros(1))]
        return torch.stack(velocities).sum()
    video = torch.zeros((1, *run.model.video_size, 3), dtype=torch.uint8)
    pixels = model(video, torch.zeros((1, run.train.points, 3), dtype=torch.int64))
    return (pixels - torch.zeros_like(pixels)).square().mean()
