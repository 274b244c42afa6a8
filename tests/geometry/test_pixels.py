import torch

from coordtok.geometry.pixels import from_uint8, overwrite_padding, real_frames, to_uint8

EVERY = torch.arange(256, dtype=torch.uint8)


def test_bytes_fill_the_range_and_come_back() -> None:
    pixels = from_uint8(EVERY)
    assert pixels.dtype == torch.float32
    assert (pixels[0].item(), pixels[-1].item()) == (-1.0, 1.0)
    assert torch.equal(to_uint8(pixels), EVERY)
    assert torch.equal(to_uint8(pixels.bfloat16().double()), to_uint8(pixels.bfloat16()))


def test_out_of_range_pixels_are_clipped_and_the_input_is_left_alone() -> None:
    pixels = torch.tensor([-7.0, 0.0, 7.0])
    assert to_uint8(pixels).tolist() == [0, 128, 255]
    assert pixels.tolist() == [-7.0, 0.0, 7.0]


def test_padding_is_overwritten_alike_in_bytes_and_floats() -> None:
    video = torch.randint(0, 256, (2, 5, 2, 2, 3), dtype=torch.uint8)
    is_real = real_frames(torch.tensor([3, 5]), 5)
    assert is_real.tolist() == [[True, True, True, False, False], [True] * 5]
    floats = from_uint8(video)
    floats[0, 3:] = float("nan")
    as_bytes = overwrite_padding(video, is_real)
    assert torch.equal(overwrite_padding(floats, is_real), from_uint8(as_bytes))
    assert torch.equal(as_bytes[0, :3], video[0, :3])
    assert torch.equal(as_bytes[1], video[1])
