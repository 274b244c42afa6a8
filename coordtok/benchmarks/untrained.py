"""Models of random weights, where only speed and memory are measured: neither depends on them."""

import torch

from coordtok.config.models import DiTModelConfig, TokenizerModelConfig
from coordtok.config.schema import RunConfig
from coordtok.diffusion.statistics import LatentStatistics
from coordtok.errors import ConfigError
from coordtok.models.dit import TriplaneDiT
from coordtok.models.tokenizer import CoordTok
from coordtok.pretrained.card import GeneratorSettings
from coordtok.pretrained.read import usable_device


def untrained_tokenizer(
    run: RunConfig, device: torch.device | str, dtype: torch.dtype | None
) -> CoordTok:
    """The tokenizer that `run` trains, as an export of it would be; float32 by default.

    Raises:
        ConfigError: `run` trains a generator, or there is no such device.
    """
    if not isinstance(run.model, TokenizerModelConfig):
        raise ConfigError(
            f"a tokenizer is wanted, but model.name is {run.model.name!r}: name one of the "
            "tokenizer_* presets with --tokenizer-config"
        )
    with usable_device(device):
        model = CoordTok(run.model)
    model.points_per_pass = run.train.points
    return model.to(dtype or torch.float32).eval()


def untrained_generator(
    run: RunConfig, device: torch.device | str, dtype: torch.dtype | None
) -> TriplaneDiT:
    """The generator that `run` trains, as an export of it would be; float32 by default.

    Raises:
        ConfigError: `run` trains a tokenizer, or there is no such device.
    """
    config, device = generator_config(run), usable_device(device)
    with device:
        model = TriplaneDiT(config)
    channels = config.latent.channels.items()
    statistics = {
        "mean": {plane: [0.0] * number for plane, number in channels},
        "std": {plane: [1.0] * number for plane, number in channels},
    }
    model.settings = GeneratorSettings(statistics, None, run.sampler)
    model.statistics = LatentStatistics.from_dict(statistics, config.latent).to(device)
    return model.to(dtype or torch.float32).eval()


def generator_config(run: RunConfig) -> DiTModelConfig:
    """The generator that `run` trains; a `ConfigError` if it trains a tokenizer."""
    if not isinstance(run.model, DiTModelConfig):
        raise ConfigError(
            f"a generator is wanted, but model.name is {run.model.name!r}: name one of the dit_* "
            "presets with --config"
        )
    return run.model
