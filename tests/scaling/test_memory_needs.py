"""Memory is counted by formula and held against what the system says is free."""

from pathlib import Path

import pytest

from coordtok.config.load import load_config
from coordtok.errors import ConfigError
from coordtok.scaling import memory_needs
from coordtok.scaling.memory import input_bytes
from coordtok.scaling.memory_needs import check_memory, free_memory, state_bytes
from coordtok.scaling.parameters import parameters, sizes


def test_what_a_rank_holds_by_stage_and_precision() -> None:
    run = load_config("tokenizer_l", ["ema.decay=0.999"])
    count = sum(parameters(run.model).values())
    assert state_bytes(run, 1, 1, 4) == count * (4 + 4 + 4 + 8 + 4)  # DeepSpeed copies masters
    assert state_bytes(run, 1, 1, 2) == count * (2 + 4 + 12 + 4)
    whole, half, shared = (state_bytes(run, 8, stage, 2) for stage in (1, 2, 3))
    assert whole == half == pytest.approx(count * (2 + 20 / 8), abs=8)
    small = sum(each for each in sizes(run.model) if each <= 1e5)
    assert shared == pytest.approx(count * (2 + 2 + 20) / 8 + 2 * small, abs=8)


def test_a_clip_is_pixels_or_a_latent_and_noise() -> None:
    assert input_bytes(load_config("tokenizer_l").model) == 128 * 128 * 128 * 3
    assert input_bytes(load_config("dit_l").model) == (16 * 16 + 2 * 32 * 16) * 8 * 4 * 2


def test_the_free_memory_is_the_least_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  4000 kB\nSwapFree: 100 kB\n")
    monkeypatch.setattr(memory_needs, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(memory_needs, "_GROUP", tmp_path)
    assert free_memory() == 4100 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.stat").write_text("anon 1000\nfile 9\n")
    assert free_memory() == 4100 * 1024
    (tmp_path / "memory.max").write_text("500000\n")
    assert free_memory() == 499_000
    check_memory(499_000, "it", "buy some")
    with pytest.raises(ConfigError, match=r"it takes at least 2.0 GB .* and 0.0 GB are free; buy"):
        check_memory(2_000_000_000, "it", "buy some")
    (tmp_path / "meminfo").write_text("")
    assert free_memory() is None
    check_memory(1 << 60, "it", "buy some")
