from pathlib import Path

import pytest

from coordtok.benchmarks.bench_memory import measure_memory
from coordtok.errors import ConfigError


def test_memory_is_looked_at_all_along(clip_shards: Path) -> None:
    report = measure_memory(str(clip_shards), 80, 4, 0, 0)
    figures = report.figures["memory"]
    assert len(figures["held_bytes"]) == 20
    assert min(figures["held_bytes"]) > 2**20
    assert figures["growth_bytes"] == figures["held_bytes"][-1] - figures["held_bytes"][1]
    assert "clips of 4 frames" in report.text
    with pytest.raises(ConfigError, match="at least 80 clips"):
        measure_memory(str(clip_shards), 79, 4, 0, 0)
