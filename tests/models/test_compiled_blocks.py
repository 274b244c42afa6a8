"""Blocks under torch.compile: the same results, names and gradients, and one graph for all."""

from copy import deepcopy
from typing import Any

import pytest
import torch

from coordtok.config.training import Recomputation
from coordtok.models.layers import BlockStack, ViTBlock
from coordtok.ops import attention as ops

GRAPHS: list[Any] = []


def backend(graph: Any, inputs: Any) -> Any:
    GRAPHS.append(graph)
    return graph.forward


@pytest.mark.parametrize("recompute", [False, True, "selective"])
def test_compiled_blocks_give_the_same_with_the_same_names(
    recompute: Recomputation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where a flash kernel is looked for, which breaks no graph."""
    monkeypatch.setattr(ops, "can_use_flash", lambda q, mask: mask is None)
    torch.compiler.reset()
    GRAPHS.clear()
    eager = BlockStack(ViTBlock(16, 2, 2.0, qkv_bias=False) for _ in range(3))
    compiled = deepcopy(eager)
    compiled.compile_blocks(backend)
    assert list(compiled.state_dict()) == list(eager.state_dict())
    compiled.set_activation_checkpointing(recompute)
    tokens = torch.randn(2, 5, 16, requires_grad=True)
    for stack in (eager, compiled):
        stack(tokens).square().sum().backward()
    for mine, other in zip(compiled.parameters(), eager.parameters()):
        assert torch.equal(mine.grad, other.grad)
    assert len(GRAPHS) == 1
    with torch.no_grad():
        for size in (1, 3):
            assert torch.equal(compiled(tokens[:, :size]), eager(tokens[:, :size]))
    assert len(GRAPHS) == 1, "passes without gradients are not compiled"
