"""Checkpoints by arithmetic: of what is in them, and of what ranks write and read."""

import pytest
import torch

from coordtok.config.load import load_config
from coordtok.models.tokenizer import CoordTok
from coordtok.scaling.checkpoints import checkpoint_costs, contents, in_words
from coordtok.scaling.memory import checkpoint_bytes
from coordtok.storage.slice_files import PIECE
from coordtok.train.optim import parameter_groups


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_groups_are_those_of_the_optimiser(optimizer: str) -> None:
    run = load_config("quickstart", [f"optim.name={optimizer}"])
    with torch.device("meta"):
        model = CoordTok(run.model)  # type: ignore[arg-type]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = parameter_groups(model, run.optim)
    groups, kinds = contents(run)
    assert [list(group) for group in groups] == [
        [names[id(parameter)] for parameter in group["params"]] for group in found
    ]
    states = 4 if optimizer == "adamw" else 3
    assert len(kinds["decoder.head.weight"]) == states
    assert len(kinds["decoder.head.bias"]) == 4


@pytest.mark.parametrize("stage", [1, 3])
def test_ranks_of_another_number_read_their_share_and_little_else(stage: int) -> None:
    run = load_config("tokenizer_s")
    groups, kinds = contents(run)
    costs = checkpoint_costs(groups, kinds, (8, stage), (3, stage))
    assert sum(costs.shares) == checkpoint_bytes(run)
    assert len(costs.saved) == 8
    headers = sum(cost.bytes for cost in costs.saved) - checkpoint_bytes(run)
    slices = sum(map(len, kinds.values()))
    for cost, share in zip(costs.loaded, costs.shares):
        assert 3 <= cost.files <= 4
        assert share < cost.bytes <= share + headers + 2 * PIECE * slices
    saved, loaded = in_words(costs)
    assert saved.startswith("8 files of ")
    assert loaded.startswith("on 3: a rank opens 3 to 4 files and reads ")
