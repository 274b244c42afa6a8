from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from coordtok.geometry.latent import LatentShape, Plane
from coordtok.geometry.planes import (
    Triplane,
    from_patches,
    pack,
    planes_of,
    read_at,
    to_patches,
    unpack,
)

LATENT = LatentShape.triplane((5, 4, 7), 3)
SIZES = {"yt": (5, 4), "xt": (5, 7), "xy": (4, 7)}


def make_planes(dtype: torch.dtype = torch.float32) -> Triplane:
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 7), (5, 4), (5, 7))
    return Triplane(
        *(torch.randn(2, *shape, 3, generator=generator, dtype=dtype) for shape in shapes)
    )


def make_coords(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Inside, on the ends, on nodes, and outside [0, 1]."""
    inside = torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(1))
    special = torch.tensor([[0, 0, 0], [1, 1, 1], [0.25, 1 / 3, 0.5], [-0.5, 1.5, 2.0]])
    return torch.cat([inside, special.expand(2, -1, -1)], dim=1).to(dtype)


def reference(planes: Triplane, coords: torch.Tensor) -> torch.Tensor:
    features = []
    for plane, (row, column) in zip(planes, ((1, 2), (0, 1), (0, 2))):
        places = coords[..., [column, row]].unsqueeze(1) * 2 - 1  # grid_sample: (x, y) in [-1, 1]
        read = F.grid_sample(
            plane.movedim(-1, 1), places, align_corners=True, padding_mode="border"
        )
        features.append(read.squeeze(2).movedim(1, -1))
    return torch.cat(features, dim=-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients_are_grid_samples(dtype: torch.dtype) -> None:
    planes = make_planes(dtype).map(torch.Tensor.requires_grad_)
    coords = make_coords(dtype)
    ours, theirs = read_at(planes, coords, LATENT), reference(planes, coords)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    for mine, other in zip(
        torch.autograd.grad((ours * weights).sum(), planes),
        torch.autograd.grad((theirs * weights).sum(), planes),
    ):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-6)


def test_planes_of_one_node_are_constant() -> None:
    one = LatentShape.triplane((1, 1, 1), 2)
    planes = Triplane(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    assert torch.equal(read_at(planes, torch.rand(1, 9, 3), one), torch.ones(1, 9, 6))


def test_chunks_of_coordinates_read_the_same() -> None:
    planes, coords = make_planes(), make_coords()
    chunks = [read_at(planes, part, LATENT) for part in coords.split(13, dim=1)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), read_at(planes, coords, LATENT))


def test_half_precision_planes_are_read_in_float32_even_under_autocast() -> None:
    planes, coords = make_planes(torch.bfloat16), make_coords()
    expected = read_at(planes.to(torch.float32), coords, LATENT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(read_at(planes, coords, LATENT), expected)


def test_inputs_are_left_alone() -> None:
    planes, coords = make_planes(), make_coords()
    before = [tensor.clone() for tensor in (*planes, coords)]
    read_at(planes, coords, LATENT)
    assert all(torch.equal(a, b) for a, b in zip(before, (*planes, coords)))


def test_map_and_to_keep_the_planes_apart() -> None:
    planes = make_planes().to(torch.float64)
    assert isinstance(planes, Triplane)
    assert {name: tuple(plane.shape[1:3]) for name, plane in planes._asdict().items()} == SIZES
    assert planes.xt.dtype == torch.float64


def test_pack_lays_out_xy_yt_xt_and_unpack_inverts_it() -> None:
    planes = make_planes()
    flat = pack(planes)
    assert flat.shape == (2, 3 * (4 * 7 + 5 * 4 + 5 * 7))
    assert torch.equal(flat[1, 3 * 4 * 7 : 3 * 4 * 7 + 3], planes.yt[1, 0, 0])
    for plane, back in zip(planes, unpack(flat, LATENT)):
        assert torch.equal(plane, back)


@pytest.mark.parametrize(("start", "stop"), [(0.0, 0.5), (0.25, 0.75), (0.5, 1.0)])
def test_a_plane_of_a_part_of_time_spans_it_and_is_zero_elsewhere(
    start: float, stop: float
) -> None:
    whole = Plane("yt", ("t", "y"), (5, 4), 3)
    planes = LatentShape((whole, replace(whole, name="part", time=(start, stop))))
    tensor, coords = make_planes().yt, make_coords()
    full, part = read_at(planes_of(planes, (tensor, tensor)), coords, planes).split(3, dim=-1)
    time = coords[..., 0]
    is_inside = (time >= start) & ((time < stop) | (stop == 1)) | ((time < 0) & (start == 0))
    assert not part[~is_inside].any()
    at = torch.stack([(time - start) / (stop - start), *coords.unbind(-1)[1:]], dim=-1)
    stretched = read_at(planes_of(planes, (tensor, tensor)), at, planes)[..., :3]
    torch.testing.assert_close(part[is_inside], stretched[is_inside])
    assert not torch.equal(part, full)


def test_planes_of_any_names_are_named_tuples_of_tensors() -> None:
    named = LatentShape((LATENT.planes[0], replace(LATENT.planes[1], name="late")))
    planes = planes_of(named, make_planes()[:2])
    assert planes._asdict().keys() == {"xy", "late"}
    assert type(planes.to(torch.float64)) is type(planes)
    assert planes.one(1).batch == 1
    doubled = tree_map(lambda tensor: 2 * tensor, planes)
    assert type(doubled) is type(planes)
    assert torch.equal(doubled[1], 2 * planes[1])
    assert type(planes_of(LATENT, make_planes())) is Triplane


def test_patches_of_a_plane_are_row_major_and_come_back() -> None:
    plane = Plane("xy", ("y", "x"), (4, 6), 2, patch=(2, 3))
    tensor = torch.arange(2 * 4 * 6 * 2.0).view(2, 4, 6, 2)
    patches = to_patches(tensor, plane)
    assert torch.equal(patches[1, 1], tensor[1, :2, 3:].flatten())
    assert torch.equal(patches[1, 2], tensor[1, 2:, :3].flatten())
    assert torch.equal(from_patches(patches, plane), tensor)
