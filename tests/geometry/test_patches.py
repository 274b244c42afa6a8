import pytest
import torch

from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.patches import gather, patchify, unpatchify, write

GRID = PatchGrid(size=(4, 6, 10), patch=(2, 3, 5))


@pytest.fixture
def video() -> torch.Tensor:
    return torch.randint(0, 256, (2, *GRID.size, 3), dtype=torch.uint8)


def everything() -> torch.Tensor:
    return GRID.unravel(torch.arange(GRID.count)).expand(2, -1, -1)


def test_gather_reads_the_pixels_of_each_patch(video: torch.Tensor) -> None:
    index = torch.tensor([[[1, 0, 1], [0, 1, 0]], [[1, 1, 1], [1, 1, 1]]])
    patches = gather(video, index, GRID.patch)
    assert patches.dtype == torch.uint8
    for clip, points in enumerate(index.tolist()):
        for n, (t, y, x) in enumerate(points):
            expected = video[clip, 2 * t : 2 * t + 2, 3 * y : 3 * y + 3, 5 * x : 5 * x + 5]
            assert torch.equal(patches[clip, n], expected)


def test_gather_takes_views_that_are_not_contiguous(video: torch.Tensor) -> None:
    channels_first = video.movedim(-1, 1).contiguous()
    assert torch.equal(
        gather(channels_first.movedim(1, -1), everything(), GRID.patch),
        gather(video, everything(), GRID.patch),
    )


def test_write_puts_patches_back(video: torch.Tensor) -> None:
    index = everything()[:, torch.randperm(GRID.count)]
    first, rest = index[:, :1], index[:, 1:]
    copy = torch.zeros_like(video)
    write(copy, gather(video, first, GRID.patch), first)
    assert not gather(copy, rest, GRID.patch).any()
    write(copy, gather(video, rest, GRID.patch), rest)
    assert torch.equal(copy, video)


def test_patchify_is_gather_of_everything_and_unpatchify_undoes_it(video: torch.Tensor) -> None:
    patches = gather(video, everything(), GRID.patch)
    assert torch.equal(patchify(video, GRID.patch), patches.flatten(2))
    assert torch.equal(unpatchify(patches, GRID), video)
    assert torch.equal(unpatchify(patches[:, GRID.per_slab :], GRID), video[:, 2:])
