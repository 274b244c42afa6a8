"""The linear codec: principal components of tubelets, as good as any linear codec of its size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from coordtok.data.shards import open_shards
from coordtok.errors import ConfigError, DataError
from coordtok.evaluation import linear_codec
from coordtok.evaluation.linear_codec import (
    LinearCodec,
    components_for,
    default_tubelet,
    fit_to_shards,
)
from coordtok.evaluation.metrics import psnr
from coordtok.geometry.patches import patchify
from coordtok.geometry.pixels import from_uint8
from tests.support.tiny import TINY

SIZE = (8, 8, 12)
TUBELET = (4, 4, 4)
TUBELETS = 2 * 2 * 3


def clips(count: int = 40, seed: int = 0) -> torch.Tensor:
    """Smooth moving pictures (B, T, H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    t, y, x = np.meshgrid(*map(np.arange, SIZE), indexing="ij")
    speed, phase = rng.uniform(-1, 1, (2, count, 3, 1, 1, 1))
    waves = np.sin(0.5 * (x + speed * t) + phase) + np.cos(0.4 * (y - speed * t) + phase)
    video = (127 + 60 * waves).transpose(0, 2, 3, 4, 1)
    return torch.from_numpy(video.round().astype(np.uint8))


def test_it_is_the_best_linear_codec_of_its_size() -> None:
    videos = clips()
    codec = LinearCodec.fit(videos.split(7), TUBELET, 5)
    tubelets = patchify(from_uint8(videos), TUBELET).flatten(0, 1)
    centred = tubelets - tubelets.mean(0)
    kept = torch.linalg.svdvals(centred.double())[5:].square().sum()
    error = (codec.reconstruct(videos) - from_uint8(videos)).double().square().sum()
    assert float(error) == pytest.approx(float(kept), rel=1e-3)


def test_every_clip_is_looked_at_where_there_are_more_tubelets_than_a_fit_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linear_codec, "MOST_TUBELETS", 2 * TUBELETS)
    flat = torch.arange(2 * TUBELETS, dtype=torch.uint8).reshape(-1, 1, 1, 1, 1)
    each_of_one_grey = flat.expand(-1, *SIZE, 3).contiguous()
    codec = LinearCodec.fit(each_of_one_grey.split(5), TUBELET, 1, most_per_clip=1)
    assert float(codec.mean_P.mean()) == pytest.approx(float(from_uint8(each_of_one_grey).mean()))


def test_it_generalises_and_improves_with_its_size() -> None:
    fitted, held_out = clips(), clips(6, seed=1)
    scores = [
        psnr(
            LinearCodec.fit([fitted], TUBELET, components).reconstruct(held_out)[0],
            from_uint8(held_out)[0],
        )
        for components in (1, 4, 16)
    ]
    assert scores == sorted(scores)
    assert scores[-1] > scores[0] + 6


def test_all_components_give_the_video_back() -> None:
    videos = clips(60)
    codec = LinearCodec.fit([videos], (2, 2, 2), 24)
    torch.testing.assert_close(codec.reconstruct(videos), from_uint8(videos), atol=1e-4, rtol=0)


def test_a_file_gives_every_bit_back(tmp_path: Path) -> None:
    codec = LinearCodec.fit([clips()], TUBELET, 3)
    codec.save(tmp_path / "codec.safetensors")
    again = LinearCodec.load(tmp_path / "codec.safetensors", SIZE, 3 * TUBELETS)
    assert again.tubelet == TUBELET
    assert torch.equal(again.mean_P, codec.mean_P)
    assert torch.equal(again.basis_KP, codec.basis_KP)


def test_the_fit_is_the_same_every_time_and_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    first, second = (LinearCodec.fit([clips()], TUBELET, 4) for _ in range(2))
    assert torch.equal(first.basis_KP, second.basis_KP)
    assert torch.equal(before, torch.random.get_rng_state())


def test_sizes_that_fit_a_model() -> None:
    assert default_tubelet((128, 64, 64)) == (16, 16, 16)
    assert default_tubelet((16, 24, 40)) == (16, 12, 10)
    assert components_for(10_240, (128, 64, 64), (16, 16, 16)) == 80
    assert components_for(10_176, (128, 64, 64), (16, 16, 16)) == 79
    with pytest.raises(ConfigError, match="11 numbers are fewer than the 12 tubelets"):
        components_for(11, SIZE, TUBELET)


def test_it_is_fitted_to_shards_and_read_for_the_model(clip_shards: Path, tmp_path: Path) -> None:
    codec = fit_to_shards(open_shards(str(clip_shards)), TINY, (4, 8, 8))
    codec.save(tmp_path / "codec")
    again = LinearCodec.load(tmp_path / "codec", TINY.video_size, TINY.latent.numbers)
    assert again.floats(TINY.video_size) <= TINY.latent.numbers
    with pytest.raises(ConfigError, match="numbers, the model as 24: compare equal sizes"):
        LinearCodec.load(tmp_path / "codec", TINY.video_size, 24)


def test_bad_files_and_sizes_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "codec.safetensors"
    with pytest.raises(DataError, match=r"is no linear codec .*fit_linear_codec.py --help"):
        LinearCodec.load(path, SIZE, 12)
    path.write_bytes(b"no tensors")
    with pytest.raises(DataError, match="is no linear codec"):
        LinearCodec.load(path, SIZE, 12)
    LinearCodec.fit([clips()], TUBELET, 3).save(path)
    with pytest.raises(ConfigError, match=r"keeps a clip of .* as 36 numbers, the model as 12"):
        LinearCodec.load(path, SIZE, 12)
    with pytest.raises(ConfigError, match=r"does not fit the model: .* does not divide"):
        LinearCodec.load(path, (6, 8, 12), 36)
    with pytest.raises(ConfigError, match="500 components of 480 tubelets of 192 numbers"):
        LinearCodec.fit([clips()], TUBELET, 500)
    with pytest.raises(ConfigError, match="no clip to fit"):
        LinearCodec.fit([], TUBELET, 1)
