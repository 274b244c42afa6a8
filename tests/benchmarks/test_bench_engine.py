import json
from pathlib import Path

from tests.support.ranks import finish


def test_every_stage_is_timed_beside_the_bare_module(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    options = ["--config", "tokenizer_tiny", "--turns", "1", "--json", path]
    done = finish("benchmark.py", "engine", *options)
    assert "ZeRO-3" in done.stdout()
    figures = json.loads(path.read_text())["engine"]
    assert list(figures) == ["bare module", "ZeRO-1", "ZeRO-2", "ZeRO-3"]
    assert all(each["seconds"] > 0 for each in figures.values())


def test_a_generator_is_refused() -> None:
    errors = finish("benchmark.py", "engine", "--config", "dit_tiny", code=2).stderr()
    assert "dit_tiny is a generator; name a tokenizer's config" in errors
