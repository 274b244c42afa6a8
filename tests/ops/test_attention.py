import logging
import sys
from pathlib import Path

import pytest
import torch

from coordtok.errors import ConfigError
from coordtok.ops import attention as ops
from coordtok.ops.attention import attention

WORKING = "from torch.nn import functional as F\n{use}\ndef flash_attn_func(q, k, v{options}):\n"
WORKING += "    out = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)))\n"
WORKING += "    calls.append({record})\n    return {result}\n"
OUT = "out.transpose(1, 2)"


def working(result: str = OUT, options: str = "", record: str = "q.shape") -> str:
    return WORKING.format(use="calls = []", options=options, record=record, result=result)


def naive(q, k, v, mask=None):
    scores = torch.einsum("blhd,bmhd->bhlm", q, k) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], float("-inf"))
    return torch.einsum("bhlm,bmhd->blhd", scores.softmax(dim=-1), v)


def make_qkv(dtype=torch.float32, device="cpu", queries=5, keys=9, head=16):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, queries, 3, head), (2, keys, 3, head), (2, keys, 3, head))
    return [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]


@pytest.fixture
def flash(monkeypatch, tmp_path: Path):
    """Install fake flash-attn modules, {dotted name: source}, and let every call qualify."""
    installed = set(sys.modules)

    def install(sources: dict[str, str]) -> None:
        for name, source in sources.items():
            *parents, leaf = name.split(".")
            folder = tmp_path.joinpath(*parents)
            folder.mkdir(parents=True, exist_ok=True)
            is_package = any(other.startswith(f"{name}.") for other in sources)
            path = folder / leaf / "__init__.py" if is_package else folder / f"{leaf}.py"
            path.parent.mkdir(exist_ok=True)
            path.write_text(source)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ops, "can_use_flash", lambda q, mask: mask is None)
    monkeypatch.setattr(ops, "_named", set())
    ops._flash_kernel.cache_clear()
    yield install
    ops._flash_kernel.cache_clear()
    for name in set(sys.modules) - installed:
        if name.startswith("flash_attn"):
            del sys.modules[name]


def test_matches_a_naive_reference() -> None:
    q, k, v = make_qkv()
    torch.testing.assert_close(attention(q, k, v), naive(q, k, v))


def test_masked_keys_are_not_seen() -> None:
    q, k, v = make_qkv()
    mask = torch.arange(9) < torch.tensor([[4], [9]])
    out = attention(q, k, v, mask)
    torch.testing.assert_close(out, naive(q, k, v, mask))
    k[0, 4:], v[0, 4:] = 100.0, -100.0
    assert torch.equal(attention(q, k, v, mask), out)


@pytest.mark.parametrize(
    ("dtype", "head", "masked", "expected"),
    [
        (torch.bfloat16, 64, False, True),
        (torch.float16, 256, False, True),
        (torch.float32, 64, False, False),
        (torch.bfloat16, 264, False, False),
        (torch.bfloat16, 60, False, False),
        (torch.bfloat16, 64, True, False),
    ],
)
def test_the_predicate(dtype, head, masked, expected) -> None:
    class OnCuda:
        is_cuda, shape = True, (1, 4, 2, head)

    OnCuda.dtype = dtype
    mask = torch.ones(1, 4, dtype=torch.bool) if masked else None
    assert ops.can_use_flash(OnCuda, mask) is expected
    OnCuda.is_cuda = False
    assert not ops.can_use_flash(OnCuda, mask)


@pytest.mark.parametrize("result", [OUT, f"({OUT}, None)"])
@pytest.mark.parametrize("module", ["flash_attn", "flash_attn_interface"])
def test_a_usable_kernel_takes_the_calls(flash, module, result) -> None:
    flash({module: working(result)})
    q, k, v = make_qkv()
    torch.testing.assert_close(attention(q, k, v), naive(q, k, v))
    assert sys.modules[module].calls[-1] == q.shape


def test_masks_never_reach_a_kernel(flash) -> None:
    flash({"flash_attn": working()})
    attention(*make_qkv(), torch.ones(2, 9, dtype=torch.bool))
    assert "flash_attn" not in sys.modules


def test_the_newest_usable_generation_is_used(flash, caplog) -> None:
    flash(
        {
            "flash_attn": working(),
            "flash_attn.cute": "raise OSError('libcute.so: wrong\\nABI')",
            "flash_attn_interface": working(),
        }
    )
    attention(*make_qkv())
    assert sys.modules["flash_attn_interface"].calls
    assert not sys.modules["flash_attn"].calls
    assert "flash_attn.cute is installed but unusable" in caplog.text


BROKEN = {
    "import error": "raise ImportError('undefined symbol: _ZN3c10')",
    "no such function": "",
    "failing call": "def flash_attn_func(q, k, v):\n    raise RuntimeError('no kernel image')\n",
    "silent failure": "def flash_attn_func(q, k, v):\n    raise RuntimeError()\n",
    "no gradient": "def flash_attn_func(q, k, v):\n    return q.detach()\n",
    "wrong result": "def flash_attn_func(q, k, v):\n    return q + k + v\n",
}


@pytest.mark.parametrize("source", BROKEN.values(), ids=BROKEN)
def test_an_unusable_kernel_is_named_once_and_sdpa_used(flash, caplog, source) -> None:
    flash({"flash_attn": source})
    q, k, v = make_qkv()
    with caplog.at_level(logging.WARNING), torch.no_grad():
        for head in (16, 16, 32):
            q, k, v = make_qkv(head=head)
            torch.testing.assert_close(attention(q, k, v), naive(q, k, v))
    assert caplog.text.count("flash_attn is installed but unusable") == 1


def test_deterministic_algorithms_ask_the_kernel_for_one(flash) -> None:
    flash({"flash_attn": working(options=", deterministic=False", record="deterministic")})
    torch.use_deterministic_algorithms(True)
    try:
        attention(*make_qkv())
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(sys.modules["flash_attn"].calls)


def test_the_trial_draws_no_random_numbers(flash) -> None:
    flash({"flash_attn": working()})
    state = torch.get_rng_state()
    with torch.inference_mode():
        attention(*make_qkv())
    assert sys.modules["flash_attn"].calls
    assert torch.equal(torch.get_rng_state(), state)


def test_a_kernel_can_be_chosen_and_is_tried_out_at_once(flash, monkeypatch) -> None:
    monkeypatch.setattr(ops, "_sdpa_alone", False)
    flash({"flash_attn": working()})
    like = {"device": torch.device("cpu"), "dtype": torch.float32, "head": 16}
    ops.choose_kernel("sdpa", **like)
    attention(*make_qkv())
    assert "flash_attn" not in sys.modules
    for wanted in ("auto", "flash"):
        ops.choose_kernel(wanted, **like)
    tried = len(sys.modules["flash_attn"].calls)
    attention(*make_qkv())
    assert len(sys.modules["flash_attn"].calls) == tried + 1


def test_flash_that_cannot_be_used_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(ops, "_sdpa_alone", False)
    ops.choose_kernel("auto", torch.device("cpu"), torch.bfloat16, 64)
    with pytest.raises(ConfigError, match="attention is flash, but no flash-attn is usable"):
        ops.choose_kernel("flash", torch.device("cpu"), torch.bfloat16, 64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("masked", [False, True])
def test_half_precision_on_the_gpu_matches_the_reference(masked) -> None:
    q, k, v = make_qkv(torch.bfloat16, "cuda", queries=130, keys=257, head=64)
    mask = torch.arange(257, device="cuda") < torch.tensor([[100], [257]], device="cuda")
    mask = mask if masked else None
    expected = naive(q.float(), k.float(), v.float(), mask)
    torch.testing.assert_close(attention(q, k, v, mask).float(), expected, atol=2e-2, rtol=2e-2)


def test_a_float_in_place_of_the_mask_is_added_to_the_logits() -> None:
    q, k, v = torch.randn(3, 2, 5, 2, 8, generator=torch.Generator().manual_seed(0))
    bias = torch.tensor([[0.0, 1, 1, 0, 0], [0, 0, 0, 0, -2]])
    logits = torch.einsum("blhd,bmhd->bhlm", q, k) / 8**0.5 + bias[:, None, None]
    expected = torch.einsum("bhlm,bmhd->blhd", logits.softmax(-1), v)
    torch.testing.assert_close(attention(q, k, v, bias), expected, atol=1e-6, rtol=0)
    low = attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), bias)
    assert (low.float() - expected).abs().max() < 0.05


def test_the_kernel_is_named() -> None:
    like = torch.device("cpu"), torch.float32, 16
    assert ops.choose_kernel("auto", *like) == ops.choose_kernel("sdpa", *like)
    assert ops.choose_kernel("auto", *like) in ("sdpa flash_attention", "sdpa math")
