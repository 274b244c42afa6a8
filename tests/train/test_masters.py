"""Masters and the weights that compute, by name, however DeepSpeed lays them out over two ranks."""

from json import dumps, loads

import pytest
import torch
from torch import nn

from coordtok import distributed
from coordtok.config.load import load_config
from coordtok.train.engine import build_engine, load_sharding
from coordtok.train.masters import Masters
from coordtok.train.slices import Slice
from tests.support.ranks import call

Values = dict[str, torch.Tensor]


@pytest.mark.parametrize(
    ("json", "zero"),
    [
        ("zero1", {}),
        ("zero3", {}),
        ("zero3", {"stage3_param_persistence_threshold": 0}),
    ],
    ids=["whole", "shares", "shares-alone"],
)
def test_values_by_name_reach_masters_and_computing_weights(json: str, zero: dict) -> None:
    call(check_rank, json, dumps(zero), ranks=2)


def check_rank(json: str, zero: str) -> None:
    distributed.setup()
    run = load_config("quickstart", ["train.global_batch=2", "optim.name=adamw"])
    sharding = load_sharding(json, run, 2).resuming("bfloat16")
    sharding.config["zero_optimization"].update(loads(zero))
    engine, masters = build_engine(Model, run, sharding)
    engine.eval()
    check_masters(engine, masters)
    distributed.barrier()


class Model(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(5, 3), nn.Linear(3, 7))


@torch.no_grad()
def check_masters(engine, masters: Masters) -> None:
    assert list(masters.shapes.values()) == [(3, 5), (3,), (7, 3), (7,)]
    values = {name: torch.randn(shape) for name, shape in masters.shapes.items()}
    values = distributed.broadcast(values)
    for name, value in values.items():
        masters.write(name, value)
    masters.publish()
    check_slices(masters.slices(), values)
    check_places(masters, values)
    opposite = {name: Slice(start, -held) for name, (start, held) in masters.slices().items()}
    for _ in range(3):  # DeepSpeed keeps small parameters whole from its second pass on
        assert torch.equal(engine(ones()), computed(values))
        with masters.replaced(opposite):
            assert torch.equal(engine(ones()), computed({n: -value for n, value in values.items()}))
    assert torch.equal(engine(ones()), computed(values))
    check_slices(masters.slices(), values)


def check_places(masters: Masters, values: Values) -> None:
    """Every rank knows where everything lies."""
    places = masters.places()
    assert {name: place.shape for name, place in places.items()} == masters.shapes
    assert {place.partition for place in places.values()} == {0}
    for name, piece in masters.slices().items():
        assert places[name].start == piece.start
        assert torch.equal(places[name].values, piece.values)


def check_slices(slices: dict[str, Slice], values: Values) -> None:
    """Over the ranks they are all of every parameter, once."""
    everyones = distributed.gather(slices)
    for name, value in values.items():
        pieces = sorted((each[name] for each in everyones if name in each), key=lambda p: p.start)
        assert torch.equal(torch.cat([piece.values for piece in pieces]), value.flatten())
        ends = [piece.start + len(piece.values) for piece in pieces]
        assert [piece.start for piece in pieces] == [0, *ends[:-1]]


def ones() -> torch.Tensor:
    return torch.ones(1, 5, dtype=torch.bfloat16)


def computed(values: Values) -> torch.Tensor:
    """What the model of these values makes of ones, in bfloat16."""
    weights = {name: value.bfloat16() for name, value in values.items()}
    hidden = nn.functional.linear(ones(), weights["0.weight"], weights["0.bias"])
    return nn.functional.linear(hidden, weights["1.weight"], weights["1.bias"])
