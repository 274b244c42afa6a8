"""The model that a config describes."""

from coordtok.config.schema import DiTModelConfig, ModelConfig
from coordtok.models.dit import TriplaneDiT
from coordtok.models.tokenizer import CoordTok


def build_model(config: ModelConfig) -> CoordTok | TriplaneDiT:
    return TriplaneDiT(config) if isinstance(config, DiTModelConfig) else CoordTok(config)
