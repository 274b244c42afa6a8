"""The one place that chooses how attention is computed: flash-attn, or torch's own (SDPA), which on
a GPU is one of several kernels.

`can_use_flash` says which calls a flash kernel could take; the first kernel that is installed and
passes a trial run takes them. A kernel that is installed but unusable is named once.

Shapes: B batch, L tokens, M keys, H heads, D width of a head.
"""

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Literal

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from coordtok.errors import ConfigError

logger = logging.getLogger(__name__)

Kernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

FLASH_MODULES = ("flash_attn.cute", "flash_attn_interface", "flash_attn")
"""Where flash-attn generations 4, 3 and 2 keep `flash_attn_func`; the newest is tried first."""

LARGEST_HEAD = 256

_named: set[str] = set()
"""Unusable modules that were already reported."""


_sdpa_alone = False
"""Whether flash-attn is left out even where it could be used."""

SDPA_ORDER = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""torch's kernels on Hopper and later, the first that takes a call first: there cuDNN's is faster
than FlashAttention 2."""
_HOPPER = (9, 0)
_TRIED_TOKENS = 128

_order = ExitStack()
"""Holds the order in which this process tries torch's kernels."""


def choose_kernel(
    wanted: Literal["auto", "sdpa", "flash"], device: torch.device, dtype: torch.dtype, head: int
) -> str:
    """Have this process compute attention as `wanted`, and try a flash kernel out at once for such
    tensors, heads of `head` numbers: not in the first step. The name of the kernel.

    Raises:
        ConfigError: flash is wanted, and none is usable.
    """
    global _sdpa_alone
    _sdpa_alone = wanted == "sdpa"
    _order.close()
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= _HOPPER:
        _order.enter_context(sdpa_kernel(SDPA_ORDER, set_priority=True))
    probe = torch.empty((1, _TRIED_TOKENS, 1, head), device=device, dtype=dtype)
    if _sdpa_alone:
        return sdpa_name(probe)
    usable = _known_kernel(device, dtype, head) if can_use_flash(probe, None) else None
    if wanted == "flash" and not usable:
        raise ConfigError(
            f"train.attention is flash, but no flash-attn is usable for {dtype} in heads of {head} "
            f'on {device.type}; install the extra "flash" on a machine with a GPU, train in bf16, '
            "or set train.attention=auto"
        )
    return sdpa_name(probe) if usable is None else "flash-attn"


def sdpa_name(like_BLHD: torch.Tensor) -> str:
    """torch's kernel for queries, keys and values like these when they want gradients."""
    q, k, v = (like_BLHD.detach().transpose(1, 2).requires_grad_() for _ in range(3))
    return f"sdpa {SDPBackend(torch._fused_sdp_choice(q, k, v)).name.lower()}"


def attention(
    q_BLHD: torch.Tensor,
    k_BLHD: torch.Tensor,
    v_BLHD: torch.Tensor,
    key_mask_BL: torch.Tensor | None = None,
) -> torch.Tensor:
    """softmax(q k^T / sqrt(D)) v, (B, L, H, D); keys where `key_mask_BL` is False are not seen.

    A float `key_mask_BL` is not a mask: it is added to the logits (`models.legacy` wants that).
    """
    if not _sdpa_alone and can_use_flash(q_BLHD, key_mask_BL):
        kernel = _known_kernel(q_BLHD.device, q_BLHD.dtype, q_BLHD.shape[-1])
        if kernel is not None:
            return kernel(q_BLHD, k_BLHD, v_BLHD)
    return sdpa(q_BLHD, k_BLHD, v_BLHD, key_mask_BL)


def single_head(
    q_BHLD: torch.Tensor, memory_BMD: torch.Tensor, key_mask_BM: torch.Tensor | None = None
) -> torch.Tensor:
    """softmax(q m^T) m, (B, H, L, D): every head reads the same memory, which is its keys and its
    values. For few queries: their weights on all keys are held. `key_mask_BM`: see `attention`."""
    heads = q_BHLD.shape[1]
    logits_BHLM = (q_BHLD.flatten(1, 2) @ memory_BMD.mT).unflatten(1, (heads, -1))
    if key_mask_BM is not None:
        mask = key_mask_BM[:, None, None, :]
        if mask.is_floating_point():
            logits_BHLM = logits_BHLM + mask.to(logits_BHLM.dtype)
        else:
            logits_BHLM = logits_BHLM.masked_fill(~mask, -torch.inf)
    precise = torch.promote_types(logits_BHLM.dtype, torch.float32)
    weights_BHLM = logits_BHLM.softmax(dim=-1, dtype=precise).to(memory_BMD.dtype)
    return (weights_BHLM.flatten(1, 2) @ memory_BMD).unflatten(1, (heads, -1))


def can_use_flash(q_BLHD: torch.Tensor, key_mask_BL: torch.Tensor | None) -> bool:
    """Whether a flash kernel could take this call, if one is usable here."""
    head = q_BLHD.shape[-1]
    return (
        key_mask_BL is None
        and q_BLHD.is_cuda
        and q_BLHD.dtype in (torch.float16, torch.bfloat16)
        and head % 8 == 0
        and head <= LARGEST_HEAD
    )


def sdpa(
    q_BLHD: torch.Tensor,
    k_BLHD: torch.Tensor,
    v_BLHD: torch.Tensor,
    key_mask_BL: torch.Tensor | None = None,
) -> torch.Tensor:
    """torch's attention; the layout it wants (heads before tokens) is only a view."""
    mask = None if key_mask_BL is None else key_mask_BL[:, None, None, :]
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q_BLHD.dtype)
    q, k, v = (tensor.transpose(1, 2) for tensor in (q_BLHD, k_BLHD, v_BLHD))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


@torch.compiler.assume_constant_result
def _known_kernel(device: torch.device, dtype: torch.dtype, head: int) -> Kernel | None:
    """`_flash_kernel` for this process; compiled code asks once, when it is made."""
    return _flash_kernel(device, dtype, head, torch.are_deterministic_algorithms_enabled())


@functools.cache
def _flash_kernel(
    device: torch.device, dtype: torch.dtype, head: int, deterministic: bool
) -> Kernel | None:
    """The newest flash kernel that works for such tensors, or None."""
    for module in FLASH_MODULES:
        if not _is_installed(module):
            continue
        try:
            kernel = _load(module, deterministic)
            _try_out(kernel, device, dtype, head)
        except Exception as error:
            _warn_once(module, f"{type(error).__name__}: {error}")
        else:
            return kernel
    return None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except Exception:  # the package it is part of is missing or broken; that one gets its own try
        return False


def _load(module: str, deterministic: bool) -> Kernel:
    function = importlib.import_module(module).flash_attn_func
    options = {"deterministic": True} if deterministic else {}

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        result = function(q, k, v, **options)
        return result[0] if isinstance(result, tuple) else result  # newer ones add the log-sum-exp

    return kernel


def _try_out(kernel: Kernel, device: torch.device, dtype: torch.dtype, head: int) -> None:
    """Run forwards and backwards on a small input and compare with SDPA; raise if it is unusable.

    The input is no random draw: training's random state must not depend on what is installed.
    """
    with torch.inference_mode(False), torch.enable_grad():
        ramp = torch.arange(3 * 16 * 2 * head, device=device, dtype=torch.float32)
        qkv = ramp.sin().view(3, 1, 16, 2, head).to(dtype).requires_grad_()
        ours = [sdpa(*qkv), *torch.autograd.grad(sdpa(*qkv).sum(), qkv)]
        out = kernel(*qkv)
        theirs = [out, *torch.autograd.grad(out.sum(), qkv)]
    for mine, other in zip(ours, theirs):
        if not torch.allclose(mine.float(), other.float(), atol=0.05, rtol=0.05):
            raise ValueError("its results differ from torch's attention")


def _warn_once(module: str, reason: str) -> None:
    if module in _named:
        return
    _named.add(module)
    first_line = reason.strip().splitlines()[0]
    logger.warning("%s is installed but unusable, so it is not used (%s)", module, first_line)
