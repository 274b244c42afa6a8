import numpy as np
import pytest

from coordtok.inference.tiling import cut, lay, tiles

SIZES = [(1, 1), (5, 40), (16, 24), (17, 24), (16, 25), (31, 47), (32, 48), (50, 7), (49, 97)]


@pytest.mark.parametrize("size", SIZES)
def test_every_pixel_comes_back(size: tuple[int, int]) -> None:
    film = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    back = np.zeros_like(film)
    for tile in tiles(size, (16, 24)):
        part = cut(film, tile, 16, 24)
        assert part.shape == (3, 16, 24, 3)
        lay(back, tile, part)
    np.testing.assert_array_equal(back, film)


@pytest.mark.parametrize("size", SIZES)
def test_no_more_tiles_than_needed(size: tuple[int, int]) -> None:
    assert len(tiles(size, (16, 24))) == -(-size[0] // 16) * -(-size[1] // 24)


def test_what_is_missing_repeats_the_border() -> None:
    film = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    part = cut(film, tiles((2, 3), (4, 5))[0], 4, 5)
    np.testing.assert_array_equal(part[:, :2, :3], film)
    np.testing.assert_array_equal(part[:, 3, :3], film[:, 1])
    np.testing.assert_array_equal(part[:, :2, 4], film[:, :, 2])


def test_tiles_of_a_larger_picture_hold_its_own_pixels() -> None:
    assert all(row + 16 <= 31 and column + 24 <= 47 for row, column in tiles((31, 47), (16, 24)))
