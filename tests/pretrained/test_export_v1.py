"""An export of format version 1, written by coordtok 0.1.0, loads and gives what it gave then.

It must never be written anew: a later version of the format gets a folder and a test of its own.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from coordtok import CoordTok, Triplane
from coordtok.errors import CheckpointError, ConfigError
from coordtok.pretrained.card import read_card
from coordtok.scaling import memory_needs

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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decoder_layers": 100_000}, "model.decoder_layers is 100000; it must be between 0 and"),
        ({"dim": 1 << 40}, "model.dim is 1099511627776; it must be between 1 and 131,072"),
        (
            {"decoder_layers": 1000, "plane_layers": 1000},
            "model.safetensors is damaged, or of another config.json",
        ),
        ({"dim": 65_536}, r"[\d,]+ bytes for [\d,]+ parameters; export it again"),
    ],
)
def test_sizes_that_the_file_does_not_hold_are_refused(
    tmp_path: Path, changed: dict[str, int], message: str
) -> None:
    shutil.copytree(FOLDER, tmp_path / "export")
    path = tmp_path / "export/config.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "model": {**card["model"], **changed}}))
    with pytest.raises(CheckpointError, match=message):
        CoordTok.from_pretrained(tmp_path / "export")


def test_memory_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_needs, "free_memory", lambda: 1000)
    with pytest.raises(ConfigError, match=r"export_v1 takes at least .* and 0.0 GB are free; load"):
        CoordTok.from_pretrained(FOLDER)
