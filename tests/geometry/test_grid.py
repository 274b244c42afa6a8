import pytest
import torch

from coordtok.errors import ConfigError
from coordtok.geometry.grid import PatchGrid

GRID = PatchGrid(size=(6, 8, 30), patch=(2, 8, 5))


def test_ravel_and_unravel_are_inverse_and_row_major() -> None:
    flat = torch.arange(GRID.count)
    index = GRID.unravel(flat)
    assert GRID.shape == (3, 1, 6)
    assert torch.equal(index, torch.cartesian_prod(*(torch.arange(n) for n in GRID.shape)))
    assert torch.equal(GRID.ravel(index.view(3, 6, 3)), flat.view(3, 6))


@pytest.mark.parametrize("count", [2, 3, 24, 48, 56, 80, 96, 127])
def test_coordinates_reach_both_ends_and_keep_every_index(count: int) -> None:
    grid = PatchGrid(size=(count, 1, 2 * count), patch=(1, 1, 2))
    index = torch.arange(count)[:, None] * torch.tensor([1, 0, 1])
    coordinates = grid.coordinates(index)
    assert coordinates.dtype == torch.float32
    assert coordinates[0].tolist() == [0, 0, 0]
    assert coordinates[-1].tolist() == [1, 0, 1]
    assert torch.equal((coordinates[:, 0] * (count - 1)).round().long(), index[:, 0])


@pytest.mark.parametrize("patch", [(4, 8, 5), (2, 3, 5), (2, 8, 60), (0, 8, 5)])
def test_patches_must_divide_the_video(patch: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError, match=r"does not divide the video \(6, 8, 30\)"):
        PatchGrid(size=(6, 8, 30), patch=patch)
