import pytest
import torch

from coordtok.config.models import TokenizerModelConfig
from coordtok.models.tokenizer import CoordTok

# Every grid is non-square and every patch has its own size, so that mixed-up axes show.
ODD = TokenizerModelConfig(
    frames=24,
    height=32,
    width=48,
    video_patch=(4, 8, 16),
    plane_size=(8, 4, 6),
    plane_patch=(4, 2, 3),
    plane_channels=4,
    decoder_patch=(2, 4, 8),
    dim=64,
    heads=2,
    video_layers=1,
    plane_layers=2,
    decoder_layers=2,
)


@pytest.fixture(scope="session")
def odd_config() -> TokenizerModelConfig:
    return ODD


@pytest.fixture
def model() -> CoordTok:
    torch.manual_seed(0)
    return CoordTok(ODD).eval()


@pytest.fixture
def video() -> torch.Tensor:
    """(2, T, H, W, 3) uint8."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, *ODD.video_size, 3), dtype=torch.uint8, generator=generator)
