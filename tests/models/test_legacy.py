"""The `legacy_padding` switch; parity with the release itself is tests/pretrained/test_official."""

import dataclasses

import pytest
import torch

from coordtok.geometry.pixels import from_uint8
from coordtok.models.legacy import legacy_memory_bias, legacy_overwrite_padding
from coordtok.models.tokenizer import CoordTok


@pytest.fixture
def legacy(model, odd_config) -> CoordTok:
    """`model` with the switch on and the same weights."""
    other = CoordTok(dataclasses.replace(odd_config, legacy_padding=True)).eval()
    other.load_state_dict(model.state_dict())
    return other


def test_a_tubelet_with_any_padded_frame_counts_as_padded() -> None:
    is_real = torch.arange(32) < torch.tensor([[20], [32], [8]])
    bias = legacy_memory_bias(is_real, slabs=4, per_slab=2)
    assert bias.tolist() == [[0] * 4 + [1] * 4, [0] * 8, [0] * 2 + [1] * 6]


def test_padded_pixels_are_minus_three_in_bytes_and_floats(video) -> None:
    is_real = torch.arange(24) < torch.tensor([[9], [24]])
    dirty = from_uint8(video)
    dirty[0, 9:] = float("nan")
    for padded in (video, dirty):
        result = legacy_overwrite_padding(padded, is_real)
        assert (result[0, 9:] == -3).all()
        assert torch.equal(result[0, :9], from_uint8(video)[0, :9])
        assert torch.equal(result[1], from_uint8(video)[1])


def test_only_short_clips_are_encoded_differently(model, legacy, video) -> None:
    for num_frames in (None, [24, 24]):
        for a, b in zip(model.encode(video, num_frames), legacy.encode(video, num_frames)):
            assert torch.equal(a, b)
    usual, old = model.encode(video, [9, 24]), legacy.encode(video, [9, 24])
    for a, b in zip(usual, old):
        assert not torch.allclose(a[0], b[0], atol=1e-3)
        torch.testing.assert_close(a[1], b[1], atol=1e-5, rtol=0)


def test_what_padding_held_does_not_matter(legacy, video) -> None:
    dirty = video.clone()
    dirty[0, 9:] = 77
    for a, b in zip(legacy.encode(video, [9, 24]), legacy.encode(dirty, [9, 24])):
        assert torch.equal(a, b)


def test_bfloat16_encodes_short_clips_too(legacy, video) -> None:
    expected = legacy.encode(video, [9, 24])
    for a, b in zip(legacy.bfloat16().encode(video, [9, 24]), expected):
        assert (a - b).abs().max() < 0.1
