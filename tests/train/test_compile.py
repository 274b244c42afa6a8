"""`train.compile` under every ZeRO stage, with and without activation checkpointing."""

from collections.abc import Callable, Iterator
from itertools import product

import pytest

from coordtok import distributed
from coordtok.benchmarks.bench_train import shared_folder, trainer_to_measure
from coordtok.config.load import load_config
from coordtok.train import engine
from tests.support.ranks import call
from tests.support.runs import Run

STEPS = 3


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_compiled_runs_take_the_same_steps(new_run: Callable[..., Run], ranks: int) -> None:
    """To the bit, under a compiler that changes no arithmetic."""
    run = new_run(train={"steps": STEPS}, model={"video_layers": 2, "decoder_layers": 2})
    call(compare, run.config, ranks=ranks)


def compare(config: str) -> None:
    distributed.setup()
    engine.COMPILER = "aot_eager"
    for stage in (1, 2, 3):
        expected = losses(config, stage)
        for overrides in combinations():
            assert losses(config, stage, *overrides) == expected, (stage, overrides)


def combinations() -> Iterator[list[str]]:
    for compiled, kind in product(("false", "true"), ("false", "true", "selective")):
        yield [f"train.compile={compiled}", f"train.activation_checkpointing={kind}"]


def losses(config: str, stage: int, *overrides: str) -> list[float]:
    run = load_config(config, list(overrides))
    sharding = engine.load_sharding(f"zero{stage}", run, distributed.world_size())
    with shared_folder(None) as work, trainer_to_measure(run, sharding, work, STEPS) as trainer:
        return [result.losses["loss"] for _, result in trainer.steps()]
