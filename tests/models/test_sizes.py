import dataclasses

import pytest
import torch

from coordtok.config.models import TokenizerModelConfig
from coordtok.models.tokenizer import CoordTok

# docs/method.md, "Sizes": size -> (plane and decoder layers, width, heads, parameters)
SIZES = {
    "L": (24, 1024, 16, 853_410_496),
    "B": (12, 768, 12, 290_664_128),
    "S": (8, 512, 8, 107_748_032),
}


@pytest.mark.parametrize("size", SIZES)
def test_parameters_are_the_papers(size: str) -> None:
    layers, dim, heads, parameters = SIZES[size]
    config = dataclasses.replace(
        TokenizerModelConfig(), dim=dim, heads=heads, plane_layers=layers, decoder_layers=layers
    )
    with torch.device("meta"):
        model = CoordTok(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
