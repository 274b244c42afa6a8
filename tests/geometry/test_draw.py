import numpy as np
import pytest

from coordtok.errors import ConfigError
from coordtok.geometry.draw import draw_points, draw_slabs
from coordtok.geometry.grid import PatchGrid

GRID = PatchGrid(size=(8, 16, 24), patch=(2, 8, 8))  # 4 x 2 x 3 patches


def rng() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(3))


def test_without_replacement_every_patch_comes_once() -> None:
    points = draw_points(rng(), GRID, GRID.count)
    assert points.dtype == np.int64
    assert len(np.unique(points, axis=0)) == GRID.count
    assert points.min(axis=0).tolist() == [0, 0, 0]
    assert points.max(axis=0).tolist() == [3, 1, 2]


def test_with_replacement_patches_are_equally_likely() -> None:
    points = draw_points(rng(), GRID, 24_000, replacement=True)
    _, counts = np.unique(points, axis=0, return_counts=True)
    assert len(counts) == GRID.count
    assert abs(counts - 1000).max() < 150


@pytest.mark.parametrize(("num_frames", "slabs"), [(8, 4), (7, 3), (4, 2), (3, 1), (1, 1)])
def test_points_lie_in_real_frames(num_frames: int, slabs: int) -> None:
    points = draw_points(rng(), GRID, 500, num_frames, replacement=True)
    assert np.unique(points[:, 0]).tolist() == list(range(slabs))


@pytest.mark.parametrize("draw", [draw_points, draw_slabs])
def test_the_draw_is_the_generators(draw) -> None:
    assert np.array_equal(draw(rng(), GRID, 12), draw(rng(), GRID, 12))


def test_slabs_are_whole_different_and_equally_likely() -> None:
    draws = [draw_slabs(np.random.default_rng(seed), GRID, 12) for seed in range(900)]
    for points in draws[:20]:
        assert points.dtype == np.int64
        slabs = points.reshape(2, 6, 3)
        assert slabs[0, 0, 0] != slabs[1, 0, 0]
        for slab in slabs:
            assert len(set(slab[:, 0])) == 1
            assert slab[:, 1:].tolist() == [[y, x] for y in range(2) for x in range(3)]
    _, counts = np.unique(np.concatenate(draws)[::6, 0], return_counts=True)
    assert abs(counts - 450).max() < 80


@pytest.mark.parametrize(
    ("count", "num_frames", "message"),
    [
        (10, None, "points is 10; draw a positive multiple of 6"),
        (0, None, "points is 0"),
        (12, 3, "points is 12, but a clip of 3 frames has 6 patches"),
    ],
)
def test_slabs_that_cannot_be_drawn(count: int, num_frames: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draw_slabs(rng(), GRID, count, num_frames)


@pytest.mark.parametrize(
    ("count", "num_frames", "message"),
    [
        (25, None, "has 24 patches; draw fewer or set train.replacement"),
        (7, 3, "a clip of 3 frames has 6 patches"),
        (0, None, "points is 0"),
        (1, 0, "num_frames is 0"),
        (1, 9, "num_frames is 9"),
    ],
)
def test_what_cannot_be_drawn(count: int, num_frames: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draw_points(rng(), GRID, count, num_frames)
