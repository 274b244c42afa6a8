import pytest
import torch

from coordtok.errors import ConfigError
from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.groups import patch_groups

PAPER = PatchGrid(size=(128, 128, 128), patch=(1, 8, 8))  # 128 slabs of 256 patches


def slabs(group: torch.Tensor) -> list[int]:
    return group[:, 0].unique().tolist()


def test_default_passes_of_the_paper_are_four_spread_frames() -> None:
    groups = patch_groups(PAPER, 1024)
    assert len(groups) == 32
    assert slabs(groups[3]) == [3, 35, 67, 99]


def test_contiguous_passes_are_neighbours() -> None:
    assert slabs(patch_groups(PAPER, 1024, "contiguous")[1]) == [4, 5, 6, 7]


def test_a_pass_can_be_one_frame() -> None:
    groups = patch_groups(PAPER, PAPER.per_slab, "contiguous")
    assert [slabs(group) for group in groups] == [[frame] for frame in range(128)]


def test_random_passes_spread_over_the_clip_and_follow_the_seed() -> None:
    first, again, other = (patch_groups(PAPER, 1024, "random", seed=seed)[5] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    for axis, size in enumerate(PAPER.shape):
        part = torch.bincount(first[:, axis] * 4 // size) / 1024  # quarters of the axis
        assert ((part > 0.2) & (part < 0.3)).all()


@pytest.mark.parametrize("grouping", ["strided", "contiguous", "random"])
@pytest.mark.parametrize("times", [1, 2, 7, 17, 128])
@pytest.mark.parametrize("points", [1, 6, 20, 1000, 10**9])
def test_every_patch_is_in_one_group_of_nearly_the_wanted_size(
    grouping: str, times: int, points: int
) -> None:
    grid = PatchGrid(size=(2 * times, 4, 6), patch=(2, 2, 2))
    groups = patch_groups(grid, points, grouping)
    together, most = (1, grid.count) if grouping == "random" else (grid.per_slab, times)
    sizes = [len(group) for group in groups]
    flat = [grid.ravel(group) for group in groups]
    assert torch.equal(torch.cat(flat).sort().values, torch.arange(grid.count))
    assert all(torch.equal(each, each.sort().values) for each in flat)
    assert max(sizes) - min(sizes) <= together

    def distance(count: int) -> float:
        return abs(grid.count / count - points)

    assert distance(len(groups)) == min(distance(count) for count in range(1, most + 1))


def test_groups_are_of_whole_slabs() -> None:
    grid = PatchGrid(size=(6, 4, 6), patch=(2, 2, 2))
    first, second = patch_groups(grid, 10)
    assert first[:, 0].tolist() == [0] * 6 + [2] * 6
    assert first[:6, 1:].tolist() == [[y, x] for y in range(2) for x in range(3)]
    assert slabs(second) == [1]


def test_what_cannot_be_grouped() -> None:
    with pytest.raises(ConfigError, match="points_per_pass is 0"):
        patch_groups(PAPER, 0)
    with pytest.raises(ConfigError, match="grouping is 'diagonal'; choose one of strided, contig"):
        patch_groups(PAPER, 1024, "diagonal")  # type: ignore[arg-type]
