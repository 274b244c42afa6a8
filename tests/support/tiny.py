"""The tokenizers that most tests use: no two axes of anything are of one size, so that mixed-up
axes show."""

from dataclasses import replace

from coordtok.config.models import TokenizerModelConfig

TINY = TokenizerModelConfig(
    frames=8,
    height=16,
    width=24,
    video_patch=(4, 8, 8),
    plane_size=(4, 2, 6),
    plane_patch=(2, 2, 3),
    plane_channels=4,
    decoder_patch=(1, 4, 8),
    dim=16,
    heads=2,
    video_layers=1,
    plane_layers=1,
    decoder_layers=1,
)
DEEP = replace(TINY, decoder_patch=(2, 4, 8))
"""With patches of two frames."""
