"""Each of torch's kernels of attention on the shapes of the presets: whether it is right, forwards
and backwards, and how long both take."""

import time
import traceback
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from coordtok import distributed
from coordtok.ops.attention import choose_kernel
from tests.gpu.record import Record
from tests.gpu.sizes import Sizes

KERNELS = ("CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION")
SHAPES = {"video": (32, 1025, 16, 64), "decoder": (32, 1024, 16, 64), "dit": (64, 320, 16, 64)}
TINY = {"video": (2, 17, 2, 16)}
BOUND = 2e-2
REPEATS = 10


def kernels(work: Path, record: Record, sizes: Sizes) -> None:
    device = distributed.device()
    for name, (batch, tokens, heads, head) in (TINY if sizes.rehearse else SHAPES).items():
        shape = (4, batch, tokens, heads, head)
        exact = torch.randn(shape, device=device).bfloat16().transpose(2, 3)
        wanted = _passes(exact[:, :2].float(), SDPBackend.MATH)
        flops = 2 * 2 * 3.5 * batch * heads * tokens * tokens * head
        for kernel in KERNELS:
            backend = getattr(SDPBackend, kernel)
            try:
                found = _passes(exact[:, :2], backend)
                seconds = _seconds(exact, backend)
            except Exception as error:
                record.figures("kernel", name=kernel, shape=name, error=str(error)[:300])
                traceback.print_exc()
                continue
            most = max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted))
            if device.type == "cuda":
                record.check(f"{kernel} {name}", most <= BOUND, most=most, bound=BOUND)
            how = {"ms": 1e3 * seconds, "tflops": flops / seconds / 1e12}
            record.figures("kernel", name=kernel, shape=name, **how)
    record.figures("chosen", kernel=choose_kernel("auto", device, torch.bfloat16, 64))


def _passes(qkvg: torch.Tensor, backend: SDPBackend) -> list[torch.Tensor]:
    """The result and the gradients of queries, keys and values, in float32."""
    q, k, v = (each.detach().requires_grad_() for each in qkvg[:3])
    with sdpa_kernel(backend):
        out = F.scaled_dot_product_attention(q, k, v)
        out.backward(qkvg[3])
    return [each.float() for each in (out, q.grad, k.grad, v.grad)]


def _seconds(qkvg: torch.Tensor, backend: SDPBackend) -> float:
    """Of a forward and a backward pass."""
    for _ in range(2):
        _passes(qkvg, backend)
    _wait()
    began = time.perf_counter()
    for _ in range(REPEATS):
        q, k, v = (each.detach().requires_grad_() for each in qkvg[:3])
        with sdpa_kernel(backend):
            F.scaled_dot_product_attention(q, k, v).backward(qkvg[3])
    _wait()
    return (time.perf_counter() - began) / REPEATS


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
