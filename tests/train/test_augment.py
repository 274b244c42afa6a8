"""Clips varied in training: whole clips, by their own draws, with padding left behind them."""

import torch

from coordtok.data.sample import SampleId
from coordtok.train.tasks.augment import augment

VIDEO_BTHW3 = torch.randint(256, (16, 5, 4, 6, 3), dtype=torch.uint8)
FRAMES = [5, 3] * 8
IDS = [SampleId(number, 0, f"sample{number}") for number in range(16)]


def varied(*kinds: str, order: list[int] | None = None, epoch: int = 0) -> torch.Tensor:
    order = list(range(16)) if order is None else order
    ids = [IDS[place]._replace(epoch=epoch) for place in order]
    frames = [FRAMES[place] for place in order]
    return augment(VIDEO_BTHW3[order], frames, ids, 0, kinds)


def variants(clip: torch.Tensor, frames: int) -> list[torch.Tensor]:
    backwards = clip.clone()
    backwards[:frames] = clip[:frames].flip(0)
    return [clip, clip.flip(2), backwards, backwards.flip(2)]


def test_clips_are_mirrored_and_reversed_each_half_of_the_time() -> None:
    seen = set()
    for clip, frames, found in zip(VIDEO_BTHW3, FRAMES, varied("flip", "reverse")):
        same = [torch.equal(found, each) for each in variants(clip, frames)]
        assert sum(same) == 1, "neither the clip nor one of its three variants"
        seen.add(same.index(True))
    assert seen == {0, 1, 2, 3}


def test_one_kind_leaves_the_other_alone_and_none_leaves_all() -> None:
    both = varied("flip", "reverse")
    mirrored, backwards = varied("flip"), varied("reverse")
    for clip, frames, *found in zip(VIDEO_BTHW3, FRAMES, both, mirrored, backwards):
        which = [torch.equal(found[0], each) for each in variants(clip, frames)].index(True)
        assert torch.equal(found[1], variants(clip, frames)[which % 2])
        assert torch.equal(found[2], variants(clip, frames)[which // 2 * 2])
    assert torch.equal(varied(), VIDEO_BTHW3)


def test_the_draw_is_the_samples_own() -> None:
    order = [int(place) for place in torch.randperm(16)]
    assert torch.equal(varied("flip", "reverse", order=order), varied("flip", "reverse")[order])
    assert not torch.equal(varied("flip", epoch=1), varied("flip"))
