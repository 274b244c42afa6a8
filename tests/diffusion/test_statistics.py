import copy
import json
import re
from typing import Any

import pytest
import torch

from coordtok.diffusion.statistics import LatentStatistics
from coordtok.errors import ConfigError
from coordtok.geometry.latent import LatentShape
from coordtok.geometry.planes import Triplane

LATENT = LatentShape.triplane((7, 5, 3), 2)
STORED = {
    "mean": {"xy": [1.0, -2.0], "yt": [0.0, 0.5], "xt": [3.0, 0.25]},
    "std": {"xy": [2.0, 0.5], "yt": [1.0, 4.0], "xt": [0.125, 1.5]},
}


def test_planes_are_normalised_channel_by_channel_and_back() -> None:
    statistics = LatentStatistics.from_dict(STORED, LATENT)
    generator = torch.Generator().manual_seed(0)
    planes = Triplane(*(torch.randn(2, r, 4, 2, generator=generator) for r in (3, 5, 7)))
    normal = statistics.normalise(planes)
    assert torch.equal(normal.xt[..., 0], (planes.xt[..., 0] - 3) / 0.125)
    assert torch.equal(normal.xy[..., 1], (planes.xy[..., 1] + 2) / 0.5)
    for plane, back in zip(planes, statistics.denormalise(normal)):
        torch.testing.assert_close(back, plane)


def test_they_travel_as_json() -> None:
    statistics = LatentStatistics.from_dict(json.loads(json.dumps(STORED)), LATENT)
    assert statistics.to_dict() == STORED


@pytest.mark.parametrize(
    ("part", "plane", "value", "message"),
    [
        ("std", "yt", None, "statistics lack std.yt"),
        ("mean", "xt", [], "statistics lack mean.xt"),
        ("mean", "xt", "text", "statistics lack mean.xt"),
        ("mean", "xt", [1.0, "a"], "statistics hold mean.xt [1.0, 'a']"),
        ("std", "xy", [1.0, 0.0], "the std of xy is [1.0, 0.0]; each must be positive"),
        ("std", "xy", [1.0, -1.0], "each must be positive"),
        ("std", "xy", [1.0, float("nan")], "statistics of xy are not all finite"),
        ("mean", "yt", [1.0, float("inf")], "statistics of yt are not all finite"),
        ("mean", "yt", [1.0], "statistics have 1 channels for mean.yt, the latents 2"),
    ],
)
def test_numbers_that_cannot_be(part: str, plane: str, value: Any, message: str) -> None:
    stored = copy.deepcopy(STORED)
    stored[part][plane] = value
    with pytest.raises(ConfigError, match=re.escape(message)):
        LatentStatistics.from_dict(stored, LATENT)


def test_a_missing_section_is_named() -> None:
    with pytest.raises(ConfigError, match=r"statistics lack mean\.xy"):
        LatentStatistics.from_dict({"std": STORED["std"]}, LATENT)
