import json

import numpy as np
import pytest

from coordtok.errors import DataError
from coordtok.inference.channel_sums import ChannelSums

SHAPES = {"xy": (3, 5, 2), "yt": (4, 3, 2), "xt": (4, 5, 2)}
CHANNELS = dict.fromkeys(SHAPES, 2)


def planes(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    return {
        name: (3 + rng.normal(size=shape) * [1, 0.1]).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def sums(numbers: range) -> ChannelSums:
    counted = ChannelSums(CHANNELS)
    for number in numbers:
        counted.add(planes(number))
    return counted


def test_they_are_those_of_all_values() -> None:
    counted = sums(range(7))
    for name in SHAPES:
        values = np.concatenate([planes(n)[name].reshape(-1, 2) for n in range(7)]).astype(float)
        np.testing.assert_allclose(counted.mean()[name], values.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(counted.std()[name], values.std(axis=0), rtol=1e-10)


def test_parts_add_up_and_come_back_from_json_bit_for_bit() -> None:
    merged = ChannelSums(CHANNELS)
    for part in (range(3), range(3, 3), range(3, 7)):
        stored = json.loads(json.dumps(sums(part).to_dict()))
        assert ChannelSums.from_dict(stored).to_dict() == sums(part).to_dict()
        merged.merge(ChannelSums.from_dict(stored))
    assert merged.count == sums(range(7)).count
    for name in SHAPES:
        np.testing.assert_allclose(merged.std()[name], sums(range(7)).std()[name], rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e20])
def test_a_channel_that_never_changes_is_named(value: float) -> None:
    counted = ChannelSums(CHANNELS)
    for number in range(5):
        dead = planes(number)
        dead["yt"][..., 1] = value
        counted.add(dead)
    with pytest.raises(DataError, match="channel 1 of plane yt is the same everywhere"):
        counted.std()
