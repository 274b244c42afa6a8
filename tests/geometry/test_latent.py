import json
from dataclasses import replace
from typing import Any

import pytest

from coordtok.errors import ConfigError
from coordtok.geometry.latent import LatentShape, Plane

PAPER = LatentShape.triplane((32, 16, 8), 4, patch=(16, 8, 4))
CONTENTS = LatentShape.triplane((32, 16, 8), (4, 2, 3), patch=(16, 8, 4), content_planes=4)
OTHERS = LatentShape(
    (
        Plane("early", ("y", "x"), (16, 8), 4, time=(0.0, 0.5)),
        Plane("xt", ("t", "x"), (32, 8), 2, patch=(2, 4)),
    )
)


def test_the_papers_planes_are_xy_yt_and_xt() -> None:
    assert PAPER.shapes == {"xy": (16, 8, 4), "yt": (32, 16, 4), "xt": (32, 8, 4)}
    assert [plane.axes for plane in PAPER.planes] == [("y", "x"), ("t", "y"), ("t", "x")]
    assert [plane.patch for plane in PAPER.planes] == [(8, 4), (16, 8), (16, 4)]
    assert PAPER.tokens == [4, 4, 4]
    assert PAPER.positions == 16 * 8 + 32 * 16 + 32 * 8
    assert PAPER.numbers == 4 * PAPER.positions
    assert PAPER.features == 12


def test_content_planes_share_the_time() -> None:
    assert CONTENTS.names == ("xy0", "xy1", "xy2", "xy3", "yt", "xt")
    assert CONTENTS.planes[1].time == (0.25, 0.5)
    assert [list(plane.steps(8)) for plane in CONTENTS.planes[2:5]] == [
        [4, 5], [6, 7], list(range(8))
    ]  # fmt: skip
    assert CONTENTS.numbers == 4 * (16 * 8 * 4) + 32 * 16 * 2 + 32 * 8 * 3
    assert CONTENTS.tokens == [4] * 6
    assert [len(group) for group in CONTENTS.plane_groups] == [4, 1, 1]
    assert [len(group) for group in PAPER.plane_groups] == [1, 1, 1]
    assert (CONTENTS.features, PAPER.features) == (4 + 2 + 3, 12)
    assert CONTENTS.to_dict() == {
        "plane_size": [32, 16, 8],
        "channels": [4, 2, 3],
        "content_planes": 4,
    }
    with pytest.raises(ValueError, match="1000000000 content planes are over"):
        LatentShape.from_dict({**CONTENTS.to_dict(), "content_planes": 10**9})
    uneven = (*CONTENTS.planes[:3], replace(CONTENTS.planes[3], channels=5), *CONTENTS.planes[4:])
    assert [len(group) for group in LatentShape(uneven).plane_groups] == [1] * 6
    assert LatentShape(uneven).to_dict().keys() == {"planes"}


@pytest.mark.parametrize("frames", [8, 12, 128])
@pytest.mark.parametrize("content_planes", [2, 4])
def test_frames_lie_in_their_own_content_plane(frames: int, content_planes: int) -> None:
    """A frame's time is its number by that of the last one; parts are of whole frames."""
    planes = LatentShape.triplane((1, 2, 2), 1, content_planes=content_planes).planes
    for plane in planes[:content_planes]:
        start, stop = plane.time
        inside = [k for k in range(frames) if start <= k / (frames - 1) < stop + (stop == 1)]
        assert inside == list(plane.steps(frames))


@pytest.mark.parametrize("latent", [PAPER, OTHERS, CONTENTS])
def test_shapes_come_back_from_json_without_their_tokens(latent: LatentShape) -> None:
    again = LatentShape.from_dict(json.loads(json.dumps(latent.to_dict())))
    assert latent.difference(again) is None
    assert again.planes == tuple(replace(plane, patch=(1, 1)) for plane in latent.planes)


def test_the_papers_shape_has_the_keys_of_a_config() -> None:
    assert PAPER.to_dict() == {"plane_size": [32, 16, 8], "channels": 4}
    assert OTHERS.to_dict().keys() == {"planes"}
    uneven = LatentShape.triplane((32, 16, 8), (4, 2, 3))
    assert uneven.to_dict() == {"plane_size": [32, 16, 8], "channels": [4, 2, 3]}
    assert LatentShape.from_dict(uneven.to_dict()) == uneven
    assert uneven.channels == {"xy": 4, "yt": 2, "xt": 3}


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (LatentShape.triplane((32, 16, 8), 4), None),
        (OTHERS, "planes xy, yt, xt, not early, xt"),
        (
            LatentShape.triplane((16, 16, 8), 4),
            "plane yt of 32 x 16 with 4 channels, not of 16 x 16 with 4 channels",
        ),
        (
            LatentShape((replace(PAPER.planes[0], time=(0.5, 1.0)), *PAPER.planes[1:])),
            "plane xy of 16 x 8 with 4 channels, not of 16 x 8 with 4 channels at times 0.5 to 1",
        ),
    ],
)
def test_the_first_difference_is_named(other: LatentShape, difference: str | None) -> None:
    assert PAPER.difference(other) == difference


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "x y"}, "a plane is called 'x y'"),
        ({"name": "_xy"}, "a plane is called '_xy'"),
        ({"name": ""}, "a plane is called ''"),
        ({"name": "class"}, "a plane is called 'class'"),
        ({"axes": ("x", "y")}, r"plane xy is over \('x', 'y'\); choose two"),
        ({"size": (0, 8)}, r"plane xy of 0 x 8 with .* must be at least 1"),
        ({"channels": 0}, "must be at least 1"),
        ({"patch": (3, 4)}, r"patches of \(3, 4\) do not divide it"),
        ({"time": (0.5, 0.5)}, "must be a part of"),
        ({"time": (-0.1, 0.5)}, "must be a part of"),
    ],
)
def test_planes_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PAPER.planes[0], **changes)


def test_planes_have_names_of_their_own() -> None:
    with pytest.raises(ConfigError, match="give at least one, each its own name"):
        LatentShape((PAPER.planes[0], PAPER.planes[0]))
