"""RGB of stored planes: by swscale and by torch the same, and near the exact."""

import av
import numpy as np
import pytest
import torch

from coordtok.geometry.pixels import from_planes
from coordtok.video.stored_planes import (
    PlanesToRgb,
    copy_planes,
    is_ours,
    plane_bytes,
    plane_shapes,
    planes_of,
)


def pictures(planes, height, width, pixel_format):
    shapes = plane_shapes(height, width, pixel_format)
    ends = np.cumsum([rows * columns for rows, columns in shapes])[:-1]
    for frame in planes:
        picture = av.VideoFrame(width, height, pixel_format)
        for target, plane in zip(planes_of(picture, shapes), np.split(frame, ends)):
            target[...] = plane.reshape(target.shape)
        yield picture


def convert(planes, height, width, pixel_format):
    video = np.empty((len(planes), height, width, 3), np.uint8)
    to_rgb = PlanesToRgb(height, width, pixel_format)
    assert to_rgb(pictures(planes, height, width, pixel_format), video) == len(planes)
    return video


def exact(y, u, v):
    """ITU-R BT.709, item 3."""
    y, u, v = (y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224
    rgb = [y + 1.5748 * v, y - 0.187324 * u - 0.468124 * v, y + 1.8556 * u]
    return np.stack(rgb, -1).clip(0, 255)


def test_colours_are_the_nearest_and_the_same_everywhere():
    levels = np.r_[0:256:3, 16, 128, 235, 240].astype(np.uint8)
    y, u, v = np.meshgrid(levels, levels, levels, indexing="ij")
    height, width = len(levels), len(levels) ** 2
    planes = np.stack([y, u, v]).reshape(1, -1)
    video = convert(planes, height, width, "yuv444p")
    found = video[0].reshape(*y.shape, 3)
    wanted = exact(y.astype(float), u.astype(float), v.astype(float))
    assert np.abs(found - wanted).max() < 0.5001
    grey = found[(u == 128) & (v == 128)]
    assert (grey == grey[:, :1]).all()
    assert {0, 255} <= set(grey.ravel().tolist())
    on_device = from_planes(torch.from_numpy(planes)[None], height, width)
    assert torch.equal(on_device[0], torch.from_numpy(video))


def test_greens_between_two_levels_are_the_same_everywhere():
    """Where the nearest level depends on how the last bit of a sum is rounded."""
    levels = np.arange(256.0)
    y, u = (each.reshape(-1) for each in np.meshgrid(levels, levels, indexing="ij"))
    between = []
    for v in range(256):
        green = exact(y, u, np.full_like(y, v))[..., 1]
        close = (abs(green % 1 - 0.5) < 1e-4) & (green > 0) & (green < 255)
        between += [(*pair, v) for pair in zip(y[close], u[close])]
    colours = np.array(between, np.uint8)
    assert len(colours) > 1000
    planes = colours.T.reshape(1, -1)
    video = convert(planes, 1, len(colours), "yuv444p")
    on_device = from_planes(torch.from_numpy(planes)[None], 1, len(colours))
    assert torch.equal(on_device[0], torch.from_numpy(video))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_same_of_every_colour():
    levels = torch.arange(256, dtype=torch.uint8)
    y, u = torch.meshgrid(levels, levels, indexing="ij")
    for v in range(256):
        planes = torch.stack([y, u, torch.full_like(y, v)]).reshape(1, 1, -1)
        found = from_planes(planes.cuda(), 256, 256)
        assert torch.equal(found.cpu(), from_planes(planes, 256, 256)), v


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
@pytest.mark.parametrize("size", [(2, 2), (5, 7), (48, 64), (130, 126), (64, 256)])
def test_blocks_and_sizes_and_chroma_are_those_of_torch(pixel_format, size):
    frames = 37
    numbers = plane_bytes(*size, pixel_format)
    planes = np.random.default_rng(0).integers(0, 256, (frames, numbers), dtype=np.uint8)
    video = convert(planes, *size, pixel_format)
    on_device = from_planes(torch.from_numpy(planes)[None], *size)
    assert torch.equal(on_device[0], torch.from_numpy(video))


def test_chroma_between_samples_is_weighed_by_distance():
    planes = np.full((1, 16 + 4 + 4), 128, np.uint8)
    planes[0, 16:20] = [100, 140, 100, 140]
    widened = np.full((1, 48), 128, np.uint8)
    widened[0, 16:32] = [100, 110, 130, 140] * 4
    assert np.array_equal(convert(planes, 4, 4, "yuv420p"), convert(widened, 4, 4, "yuv444p"))


def test_planes_of_pictures_lie_one_after_the_other():
    rng = np.random.default_rng(1)
    for pixel_format, shape in (("yuv420p", (9, 10)), ("yuv444p", (3, 6, 10))):
        planes = rng.integers(0, 256, shape, dtype=np.uint8)
        picture = av.VideoFrame.from_ndarray(planes, format=pixel_format)
        frame = np.empty(plane_bytes(6, 10, pixel_format), np.uint8)
        copy_planes(picture, plane_shapes(6, 10, pixel_format), frame)
        assert np.array_equal(frame, planes.ravel())
        assert not is_ours(picture)
