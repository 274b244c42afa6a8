"""An export of format version 1, written by coordtok 0.1.0, loads and gives what it gave then.

It must never be written anew: a later version of the format gets a folder and a test of its own.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file

from coordtok import CoordTok, Triplane
from coordtok.pretrained.card import read_card

FOLDER = Path(__file__).parents[1] / "fixtures/export_v1"


def test_it_loads_and_gives_what_it_gave() -> None:
    model = CoordTok.from_pretrained(FOLDER)
    frames, height, width = model.config.video_size
    t, y, x, colour = torch.meshgrid(*map(torch.arange, (frames, height, width, 3)), indexing="ij")
    video = (40 * t + 7 * y + 3 * x * (colour + 1)).remainder(256).to(torch.uint8)[None]
    expected = load_file(FOLDER / "expected.safetensors")
    with torch.no_grad():
        planes = model.encode(video, num_frames=[6])
    for name in Triplane._fields:
        torch.testing.assert_close(getattr(planes, name), expected[name], atol=1e-5, rtol=1e-5)
    decoded = model.decode(planes)
    torch.testing.assert_close(decoded, expected["decoded"].clamp(-1, 1), atol=1e-5, rtol=1e-5)


def test_its_card_says_where_it_is_from() -> None:
    card = read_card(FOLDER)
    assert card.settings.points_per_pass == 12
    assert (card.origin.weights, card.origin.step) == ("ema", 40)
    assert card.origin.history["data"][0]["fps"] == 25.0
