"""Whether a checkpoint is of a run, judged from its state alone."""

from typing import Any

import pytest

from coordtok.config.load import load_config, to_dict
from coordtok.config.schema import RunConfig
from coordtok.errors import CheckpointError
from coordtok.train.checkpoint import TrainState
from coordtok.train.resume import check_same_run


def state_of(config: dict[str, Any]) -> TrainState:
    return TrainState(
        step=1,
        seconds=1.0,
        loader={},
        data=[],
        skipped=0,
        config=config,
        world_size=1,
        zero_stage=3,
        precision="float32",
        forward_check=1.0,
    )


@pytest.fixture
def run() -> RunConfig:
    return load_config("quickstart")


def test_a_checkpoint_older_than_a_field_had_its_default(run: RunConfig) -> None:
    config = to_dict(run)
    del config["model"]["legacy_padding"]
    check_same_run(state_of(config), run, [], allow_grown_data=False)
    padded = load_config("quickstart", ["model.legacy_padding=true"])
    with pytest.raises(CheckpointError, match=r"legacy_padding is True, but .* trained with False"):
        check_same_run(state_of(config), padded, [], allow_grown_data=False)


def test_another_kind_of_model_is_called_that(run: RunConfig) -> None:
    generator = load_config("dit_quickstart")
    with pytest.raises(CheckpointError, match=r"model\.name is dit, but .* trained with coordtok"):
        check_same_run(state_of(to_dict(run)), generator, [], allow_grown_data=False)
