import numpy as np
import pytest

from coordtok.config.errors import ConfigError
from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.sampling import draw_points

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


def test_the_draw_is_the_generators() -> None:
    assert np.array_equal(draw_points(rng(), GRID, 9), draw_points(rng(), GRID, 9))


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
