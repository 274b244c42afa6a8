from pathlib import Path

import pytest
import torch

from coordtok.errors import ConfigError
from coordtok.losses.perceptual import PerceptualDistance, load_perceptual
from coordtok.losses.vgg import VGGFeatures
from tests.support.random_vgg import random_heads, random_vgg, reference, write_keras, write_vgg


def pictures(frames: int = 2, height: int = 32, width: int = 48) -> tuple[torch.Tensor, ...]:
    """Targets (F, H, W, 3) and noisy predictions of them."""
    generator = torch.Generator().manual_seed(5)
    target = torch.rand(frames, height, width, 3, generator=generator) * 2 - 1
    return target + 0.3 * torch.randn(target.shape, generator=generator), target


def narrow(bias: float = 0.0, pixels_per_pass: int = 1 << 20) -> PerceptualDistance:
    torch.manual_seed(0)
    network = VGGFeatures(((4, 4), (6, 6), (8, 8), (8, 8), (8, 8)))
    for layer in network.features:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.constant_(layer.bias, bias)
    heads = [torch.rand(count) for count in (4, 6, 8, 8, 8)]
    shift, scale = (0.0, 0.1, 0.2), (0.5, 0.4, 0.3)
    return PerceptualDistance(network, heads, shift, scale, "narrow", pixels_per_pass)


def test_lpips_is_its_published_formula(tmp_path: Path) -> None:
    distance = load_perceptual("lpips", str(write_vgg(tmp_path / "own.pth")))
    predicted, target = pictures(height=37)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    scaled = [((x - shift) / scale).permute(0, 3, 1, 2) for x in (predicted, target)]
    expected = reference(random_vgg(), list(random_heads().values()), *scaled)
    found = distance(predicted, target)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert distance.name == "LPIPS-VGG of own.pth"


def test_lpips_is_the_package(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    lpips = pytest.importorskip("lpips")
    package = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    tensors = {**random_vgg(), **random_heads()}
    for block in range(1, 6):
        part = getattr(package.net, f"slice{block}")
        part.load_state_dict({name: tensors[f"features.{name}"] for name in part.state_dict()})
    package.load_state_dict(random_heads(), strict=False)
    predicted, target = pictures()
    expected = package(predicted.permute(0, 3, 1, 2), target.permute(0, 3, 1, 2)).flatten()
    found = load_perceptual("lpips", str(write_vgg(tmp_path / "own.pth")))(predicted, target)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_hed_sees_blue_first_and_weighs_channels_alike(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    path = write_keras(tmp_path / "own.h5", random_vgg())
    predicted, target = pictures()
    mean_bgr = torch.tensor([104.00699, 116.66877, 122.67892])
    scaled = [((x.flip(3) + 1) * 127.5 - mean_bgr).permute(0, 3, 1, 2) for x in (predicted, target)]
    heads = [torch.full((channels,), 0.2) for channels in (64, 128, 256, 512, 512)]
    expected = reference(random_vgg(), heads, *scaled)
    distance = load_perceptual("hed", str(path))
    assert distance(predicted, target).tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert distance.name == "VGG(HED) of own.h5"


def test_equal_pictures_have_no_distance_and_different_ones_do() -> None:
    predicted, target = pictures()
    assert narrow()(target, target).tolist() == [0, 0]
    assert (narrow()(predicted, target) > 0).all()


def test_the_gradient_reaches_the_prediction_alone() -> None:
    distance = narrow()
    predicted, target = (x.requires_grad_() for x in pictures())
    distance(predicted, target).sum().backward()
    assert predicted.grad is not None
    assert (predicted.grad != 0).any()
    assert target.grad is None
    assert not any(parameter.requires_grad for parameter in distance.parameters())


def test_the_gradient_is_finite_where_no_channel_answers() -> None:
    predicted, target = pictures()
    predicted.requires_grad_()
    found = narrow(bias=-100.0)(predicted, target)
    found.sum().backward()
    assert found.tolist() == [0, 0]
    assert torch.isfinite(predicted.grad).all()


def test_many_frames_are_done_in_turns_with_the_same_result() -> None:
    predicted, target = pictures(frames=5, height=16, width=16)
    results = []
    for pixels in (1, 2 * 256, 1 << 20):
        leaf = predicted.clone().requires_grad_()
        found = narrow(pixels_per_pass=pixels)(leaf, target)
        found.sum().backward()
        results.append((found.detach(), leaf.grad))
    for found, gradient in results[:-1]:
        torch.testing.assert_close(found, results[-1][0])
        torch.testing.assert_close(gradient, results[-1][1])


def test_precision_around_it_does_not_matter() -> None:
    predicted, target = pictures()
    expected = narrow()(predicted, target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = narrow()(predicted, target)
    assert torch.equal(found, expected)
    assert narrow()(predicted.bfloat16(), target).dtype == torch.float32


def test_frames_that_nothing_would_be_left_of() -> None:
    predicted, target = pictures(height=15)
    with pytest.raises(ConfigError, match="frames are 15 x 48, but VGG16 needs at least 16 x 16"):
        narrow()(predicted, target)
