"""Few queries read a memory without making its keys and values: the same result for less."""

from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from coordtok.config.load import load_config
from coordtok.models.layers import CrossAttention, CrossSelfBlock
from coordtok.scaling.operations import operations

MASKS = {
    "none": None,
    "bool": torch.arange(50) < torch.tensor([[7], [50]]),
    "bias": torch.arange(100.0).view(2, 50).sin(),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_both_ways_give_the_same_result_and_gradients(mask: torch.Tensor | None) -> None:
    found = []
    for projects_memory in (True, False):
        torch.manual_seed(0)
        layer = CrossAttention(64, 4, projects_memory=projects_memory)
        tokens, memory = torch.randn(2, 6, 64), torch.randn(2, 50, 64)
        given = [tokens.requires_grad_(), memory.requires_grad_(), *layer.parameters()]
        result = layer(tokens, memory, mask)
        found.append([result, *torch.autograd.grad(result.square().sum(), given)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_in_bfloat16_the_weights_on_keys_are_float32() -> None:
    torch.manual_seed(0)
    layer, tokens = CrossAttention(64, 4, projects_memory=False), torch.randn(2, 6, 64)
    memory = torch.randn(2, 50, 64)
    expected = layer(tokens, memory)
    found = layer.bfloat16()(tokens.bfloat16(), memory.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tokenizer_l", False),  # 12 tokens, 64 numbers a head: a fifth of the operations
        ("tokenizer_s", False),
        ("tokenizer_tiny", True),  # 48 tokens, 32 numbers a head
        ("tokenizer_l_recipe", True),
    ],
)
def test_the_way_of_fewer_operations_is_chosen(name: str, expected: bool) -> None:
    assert load_config(name).model.projects_memory is expected


def test_operations_of_few_queries_are_those_that_torch_counts() -> None:
    run = load_config("tokenizer_s")
    model = replace(run.model, plane_layers=1)
    with torch.device("meta"):
        block = CrossSelfBlock(model.dim, model.heads, model.mlp_ratio, projects_memory=False)
        tokens, memory = torch.zeros(1, 12, model.dim), torch.zeros(1, 1024, model.dim)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        block(tokens, memory)
    counted = operations(replace(run, model=model))["plane blocks"]
    assert sum(each.forward for each in counted) == counter.get_total_flops()
