"""Attention, MLP and the transformer blocks of the tokenizer, pre-norm throughout.

Linear layers keep torch's default initialisation, as the paper's release does: a standard deviation
of 1 / sqrt(3 fan_in), which at width 1024 is the 0.02 of ViT and stays right for narrow models.
Every parameter is initialised inside its own module's `__init__`, because `deepspeed.zero.Init`
partitions it right after.

Shapes: B batch, L tokens, M memory tokens, D width, H heads, K width of a
head.
"""

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from coordtok.config.training import Recomputation
from coordtok.ops.attention import attention, single_head

VIT_EPS = 1e-5
"""LayerNorm epsilon of the ViT blocks; newer timm has 1e-6, the release was trained with this."""
CROSS_SELF_EPS = 1e-6


class FusedLinear(nn.Linear):
    """Several linear layers of one input and one size as one: its weight is a stack of matrices."""

    def __init__(self, inputs: int, outputs: int, parts: int, bias: bool) -> None:
        super().__init__(inputs, parts * outputs, bias=bias)
        self.parts = parts


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def output_linear(inputs: int, outputs: int, zero_init: bool, bias: bool = True) -> nn.Linear:
    """The last layer of what is added to something."""
    return (ZeroLinear if zero_init else nn.Linear)(inputs, outputs, bias=bias)


class SelfAttention(nn.Module):
    def __init__(
        self, dim: int, heads: int, qkv_bias: bool, out_bias: bool, zero_init: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = FusedLinear(dim, dim, 3, bias=qkv_bias)
        self.out = output_linear(dim, dim, zero_init, bias=out_bias)

    def split(self, tokens_BLD: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values (B, L, H, K)."""
        return self.qkv(tokens_BLD).unflatten(-1, (3, self.heads, -1)).unbind(2)


class MemoryAttention(FusedLinear):
    """Queries attend to a memory through the keys and values that its weight makes of it.

    Few queries read a long memory without making them: q (W_k m) = (W_k' q) m, and a mix of values
    is W_v times the mix of the memory. Each head then reads all numbers of the memory, so that this
    is fewer operations only for fewer queries than a head has numbers.
    """

    def __init__(self, dim: int, heads: int, projects_memory: bool) -> None:
        super().__init__(dim, dim, 2, bias=False)
        self.heads, self.projects_memory = heads, projects_memory

    def forward(  # type: ignore[override]
        self,
        q_BLHK: torch.Tensor,
        memory_BMD: torch.Tensor,
        key_mask_BM: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, L, H, K); `key_mask_BM` as in `ops.attention.attention`."""
        if not self.projects_memory:
            return self._read_directly(q_BLHK, memory_BMD, key_mask_BM)
        k, v = super().forward(memory_BMD).unflatten(-1, (2, self.heads, -1)).unbind(2)
        return attention(q_BLHK, k, v, key_mask_BM)

    def _read_directly(
        self, q_BLHK: torch.Tensor, memory_BMD: torch.Tensor, key_mask_BM: torch.Tensor | None
    ) -> torch.Tensor:
        key_HKD, value_HKD = self.weight.unflatten(0, (2, self.heads, -1)).unbind(0)
        q_BLHK = q_BLHK * q_BLHK.shape[-1] ** -0.5
        q_BHLD = torch.einsum("blhk,hkd->bhld", q_BLHK, key_HKD)
        mix_BHLD = single_head(q_BHLD, memory_BMD, key_mask_BM)
        return torch.einsum("bhld,hkd->blhk", mix_BHLD, value_HKD)


class CrossAttention(nn.Module):
    """Tokens attend to a memory; no biases."""

    def __init__(
        self, dim: int, heads: int, zero_init: bool = False, projects_memory: bool = True
    ) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.kv = MemoryAttention(dim, heads, projects_memory)
        self.out = output_linear(dim, dim, zero_init, bias=False)

    def forward(
        self,
        tokens_BLD: torch.Tensor,
        memory_BMD: torch.Tensor,
        key_mask_BM: torch.Tensor | None = None,
    ) -> torch.Tensor:
        q_BLHK = self.q(tokens_BLD).unflatten(-1, (self.heads, -1))
        return self.out(self.kv(q_BLHK, memory_BMD, key_mask_BM).flatten(2))


class MLP(nn.Module):
    def __init__(
        self,
        dim: int,
        ratio: float,
        approximate: Literal["none", "tanh"] = "none",
        zero_init: bool = False,
    ) -> None:
        """approximate: the GELU's, exact by default."""
        super().__init__()
        hidden = int(dim * ratio)
        self.up = nn.Linear(dim, hidden)
        self.act = nn.GELU(approximate)
        self.down = output_linear(hidden, dim, zero_init)

    def forward(self, tokens_BLD: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.up(tokens_BLD)))


class Block(nn.Module):
    """A transformer block around one self-attention: what comes before it, and what after."""

    is_selective = False
    """Whether both are computed again in the backward pass, and only what enters them and the
    attention is kept."""

    def between(self, function: Callable[..., Any], *inputs: Any) -> Any:
        """`function`, what lies between self-attentions."""
        if self.is_selective and torch.is_grad_enabled():
            return _recomputed(function, *inputs)
        return function(*inputs)


def _recomputed(function: Callable[..., Any], *inputs: Any) -> Any:
    return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=False)


class ViTBlock(Block):
    """Self-attention and MLP, each added to what it reads through a LayerNorm."""

    def __init__(
        self, dim: int, heads: int, mlp_ratio: float, qkv_bias: bool, zero_init: bool = False
    ) -> None:
        """zero_init: start by adding nothing."""
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=VIT_EPS)
        self.attention = SelfAttention(dim, heads, qkv_bias, out_bias=True, zero_init=zero_init)
        self.mlp_norm = nn.LayerNorm(dim, eps=VIT_EPS)
        self.mlp = MLP(dim, mlp_ratio, zero_init=zero_init)

    def forward(
        self, tokens_BLD: torch.Tensor, key_mask_BL: torch.Tensor | None = None
    ) -> torch.Tensor:
        q, k, v = self.between(self._before, tokens_BLD)
        return self.between(self._after, tokens_BLD, attention(q, k, v, key_mask_BL).flatten(2))

    def _before(self, tokens_BLD: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.attention.split(self.attention_norm(tokens_BLD))

    def _after(self, tokens_BLD: torch.Tensor, mixed_BLD: torch.Tensor) -> torch.Tensor:
        tokens_BLD = tokens_BLD + self.attention.out(mixed_BLD)
        return tokens_BLD + self.mlp(self.mlp_norm(tokens_BLD))


class CrossSelfBlock(Block):
    """Cross-attention to a memory, self-attention, MLP; attention has no biases."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float,
        zero_init: bool = False,
        projects_memory: bool = True,
    ) -> None:
        """zero_init: start by adding nothing; projects_memory: see `MemoryAttention`."""
        super().__init__()
        self.cross_norm = nn.LayerNorm(dim, eps=CROSS_SELF_EPS)
        self.cross_attention = CrossAttention(dim, heads, zero_init, projects_memory)
        self.self_norm = nn.LayerNorm(dim, eps=CROSS_SELF_EPS)
        self.self_attention = SelfAttention(
            dim, heads, qkv_bias=False, out_bias=False, zero_init=zero_init
        )
        self.mlp_norm = nn.LayerNorm(dim, eps=CROSS_SELF_EPS)
        self.mlp = MLP(dim, mlp_ratio, zero_init=zero_init)

    def forward(
        self,
        tokens_BLD: torch.Tensor,
        memory_BMD: torch.Tensor,
        key_mask_BM: torch.Tensor | None = None,
    ) -> torch.Tensor:
        tokens_BLD, q, k, v = self.between(self._before, tokens_BLD, memory_BMD, key_mask_BM)
        return self.between(self._after, tokens_BLD, attention(q, k, v).flatten(2))

    def _before(
        self,
        tokens_BLD: torch.Tensor,
        memory_BMD: torch.Tensor,
        key_mask_BM: torch.Tensor | None,
    ) -> tuple[torch.Tensor, ...]:
        normed_BLD = self.cross_norm(tokens_BLD)
        tokens_BLD = tokens_BLD + self.cross_attention(normed_BLD, memory_BMD, key_mask_BM)
        return tokens_BLD, *self.self_attention.split(self.self_norm(tokens_BLD))

    def _after(self, tokens_BLD: torch.Tensor, mixed_BLD: torch.Tensor) -> torch.Tensor:
        tokens_BLD = tokens_BLD + self.self_attention.out(mixed_BLD)
        return tokens_BLD + self.mlp(self.mlp_norm(tokens_BLD))


class BlockStack(nn.ModuleList):
    """Blocks one after another, each given the same context (memory, masks)."""

    _is_recomputed = False
    """Whether only what enters a block is kept, and the rest computed again."""

    def set_activation_checkpointing(self, kind: Recomputation) -> None:
        """Less memory for more operations in the backward pass, with the same gradients."""
        self._is_recomputed = kind is True
        for block in self:
            cast(Block, block).is_selective = kind == "selective"

    def compile_blocks(self, backend: str) -> None:
        """Have torch.compile make each block's `forward` one graph, where gradients are wanted.

        Only what a module's hooks (DeepSpeed's, which gather weights) lie around is compiled, and
        names of parameters stay. Without gradients blocks run as they are: shapes vary there, and
        each would be compiled anew.
        """
        for block in self:
            block.forward = _compiled(block.forward, backend)

    def forward(self, tokens_BLD: torch.Tensor, *context: Any) -> torch.Tensor:
        recompute = self._is_recomputed and torch.is_grad_enabled()
        for block in self:
            if recompute:
                tokens_BLD = _recomputed(block, tokens_BLD, *context)
            else:
                tokens_BLD = block(tokens_BLD, *context)
        return tokens_BLD


def _compiled(forward: Callable[..., torch.Tensor], backend: str) -> Callable[..., torch.Tensor]:
    compiled = torch.compile(forward, backend=backend, fullgraph=True, dynamic=False)

    def run(*args: Any) -> torch.Tensor:
        return (compiled if torch.is_grad_enabled() else forward)(*args)

    return run


def block_stacks(model: nn.Module) -> list[BlockStack]:
    """Those of a model, in order."""
    return [module for module in model.modules() if isinstance(module, BlockStack)]
