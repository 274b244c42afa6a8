import sys

import numpy as np
import pytest
from PIL import Image

from coordtok.errors import ConfigError
from coordtok.evaluation.plots import Axis, write_scatter

ACROSS = Axis("motion", [1.0, 2.0, 3.0, 5.5])
UP = Axis("PSNR, dB", [30.0, 28.5, 27.0, 25.5])


def test_the_same_points_give_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    for name in ("a.png", "b.png"):
        write_scatter(tmp_path / name, "four clips", ACROSS, UP)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (900, 600)
        assert "Software" not in picture.info
    assert "matplotlib.pyplot" not in sys.modules


def test_points_and_their_trend_are_there(tmp_path):
    def pixels(across, colour):
        write_scatter(tmp_path / "a.png", "", across, UP)
        picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
        return (abs(picture - colour).max(-1) < 30).sum()

    red, blue = (231, 103, 103), (124, 161, 243)
    assert pixels(ACROSS, blue) > 100
    assert pixels(ACROSS, red) > 100
    assert pixels(Axis("motion", [2.0] * 4), red) == 0


def test_one_point_is_a_plot(tmp_path):
    write_scatter(tmp_path / "a.png", "one clip", Axis("motion", [0.0]), Axis("PSNR", [30.0]))
    assert (tmp_path / "a.png").is_file()


def test_a_missing_matplotlib_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"need matplotlib.*pip install 'coordtok\[evaluation\]'"):
        write_scatter(tmp_path / "a.png", "", ACROSS, UP)
    assert not (tmp_path / "a.png").exists()
