import pytest
import torch

from coordtok.config.errors import ConfigError
from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.groups import group_index, slab_groups

PAPER = PatchGrid(size=(128, 128, 128), patch=(1, 8, 8))  # 128 slabs of 256 patches


def test_default_passes_of_the_paper_are_four_spread_frames() -> None:
    groups = slab_groups(PAPER, 1024)
    assert len(groups) == 32
    assert groups[3] == (3, 35, 67, 99)


def test_contiguous_passes_are_neighbours() -> None:
    assert slab_groups(PAPER, 1024, "contiguous")[1] == (4, 5, 6, 7)


def test_random_passes_follow_the_seed() -> None:
    first = slab_groups(PAPER, 1024, "random", seed=1)
    assert first == slab_groups(PAPER, 1024, "random", seed=1)
    assert first != slab_groups(PAPER, 1024, "random", seed=2)


@pytest.mark.parametrize("grouping", ["strided", "contiguous", "random"])
@pytest.mark.parametrize("slabs", [1, 2, 7, 17, 128])
@pytest.mark.parametrize("points", [1, 6, 20, 1000, 10**9])
def test_every_slab_is_in_one_group_of_nearly_the_wanted_size(
    grouping: str, slabs: int, points: int
) -> None:
    grid = PatchGrid(size=(2 * slabs, 4, 6), patch=(2, 2, 2))
    groups = slab_groups(grid, points, grouping)
    sizes = [len(group) for group in groups]
    assert sorted(slab for group in groups for slab in group) == list(range(slabs))
    assert max(sizes) - min(sizes) <= 1

    def distance(count: int) -> float:
        return abs(grid.count / count - points)

    assert distance(len(groups)) == min(distance(count) for count in range(1, slabs + 1))


def test_group_index_lists_whole_slabs() -> None:
    grid = PatchGrid(size=(6, 4, 6), patch=(2, 2, 2))
    index = group_index(grid, (2, 0))
    assert torch.equal(index[:, 0], torch.tensor([2] * 6 + [0] * 6))
    assert index[:6, 1:].tolist() == [[y, x] for y in range(2) for x in range(3)]


def test_what_cannot_be_grouped() -> None:
    with pytest.raises(ConfigError, match="points_per_pass is 0"):
        slab_groups(PAPER, 0)
    with pytest.raises(ConfigError, match="grouping is 'diagonal'; choose one of strided, contig"):
        slab_groups(PAPER, 1024, "diagonal")  # type: ignore[arg-type]
