"""Bytes kept for the backward pass by formula are those that autograd saves."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from coordtok.config.load import load_config, preset_names
from coordtok.config.schema import RunConfig
from coordtok.geometry.planes import unpack
from coordtok.models import linear_path
from coordtok.scaling.activations import activation_bytes, kept_for_backward
from tests.scaling.test_formulas import build_model, products_alone

SMALL = (
    "quickstart",
    "tokenizer_film",
    "tokenizer_tiny",
    "tokenizer_s",
    "tokenizer_s_recipe",
    "dit_tiny",
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in SMALL else pytest.mark.slow)
        for name in preset_names()
    ],
)
def test_bytes_are_those_that_autograd_keeps(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Within 5 %, without memory for it: fake tensors have shapes alone. The linear path is decoded
    as on a GPU, and in float32: from bfloat16 its weights are copied, once for all clips."""
    monkeypatch.setattr(linear_path, "_products_by_place", products_alone)
    run = load_config(name, ["train.activation_checkpointing=false"])
    dtype = torch.float32 if getattr(run.model, "linear_path", False) else torch.bfloat16
    assert activation_bytes(run, dtype.itemsize) == pytest.approx(_kept(run, dtype), rel=0.05)


def test_recomputing_keeps_what_enters_blocks_and_the_insides_of_one() -> None:
    plain = load_config("tokenizer_b")
    less = load_config("tokenizer_b", ["train.activation_checkpointing=true"])
    assert (
        0.1 * activation_bytes(plain, 2)
        < activation_bytes(less, 2)
        < 0.25 * activation_bytes(plain, 2)
    )
    blocks = kept_for_backward(less, 2)["decoder blocks"]
    assert blocks.recomputed == 12 * 1024 * 768 * 2


def _kept(run: RunConfig, dtype: torch.dtype) -> int:
    """Bytes of all different memory that a forward pass and the loss of one clip save."""
    with torch.device("meta"):
        model = build_model(run.model)
    storages: dict[int, torch.UntypedStorage] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages.setdefault(storage._cdata, storage)
        return tensor

    with FakeTensorMode():
        _make_fake(model, dtype)
        own = {each.untyped_storage()._cdata for each in model.parameters()}
        with saved_tensors_hooks(save, lambda tensor: tensor):
            _loss(model, run)
    return sum(each.nbytes() for key, each in storages.items() if key not in own)


def _make_fake(model: nn.Module, dtype: torch.dtype) -> None:
    for module in model.modules():
        for name, each in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(each.shape, dtype=dtype)))
        for name, each in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(each.shape, dtype=each.dtype))


def _loss(model: nn.Module, run: RunConfig) -> torch.Tensor:
    if run.model.name == "dit":
        planes = unpack(torch.zeros(1, run.model.latent.numbers), run.model.latent)
        return sum(each.square().mean() for each in model(planes, torch.zeros(1)))
    video = torch.zeros((1, *run.model.video_size, 3), dtype=torch.uint8)
    pixels = model(video, torch.zeros((1, run.train.points, 3), dtype=torch.int64))
    return (pixels - torch.zeros_like(pixels)).square().mean()
