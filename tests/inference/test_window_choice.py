import pytest

from coordtok.data.index import SampleEntry
from coordtok.errors import ConfigError
from coordtok.inference.window_choice import WindowChoice


def video(frames: int, key: str = "key") -> SampleEntry:
    return SampleEntry(key, frames, {"npy": (512, 1)})


@pytest.mark.parametrize(
    ("frames", "starts"),
    [(0, [0]), (5, [0]), (8, [0]), (9, [0, 1]), (16, [0, 8]), (21, [0, 8, 13]), (24, [0, 8, 16])],
)
def test_all_windows_cover_every_frame_and_are_full(frames: int, starts: list[int]) -> None:
    assert WindowChoice().starts(video(frames), 8) == starts


def test_random_windows_depend_on_seed_and_key_and_nothing_else() -> None:
    choice = WindowChoice(4, seed=3)
    starts = choice.starts(video(1000), 8)
    assert starts == sorted(set(starts))
    assert len(starts) == 4
    assert starts == choice.starts(video(1000), 8)
    assert starts != WindowChoice(4, seed=4).starts(video(1000), 8)
    assert starts != choice.starts(video(1000, "other"), 8)
    more = WindowChoice(9, seed=3).starts(video(1000), 8)
    assert set(starts) <= set(more)


def test_no_window_comes_twice() -> None:
    assert WindowChoice(50).starts(video(10), 8) == [0, 1, 2]
    assert WindowChoice(50).starts(video(8), 8) == [0]
    assert WindowChoice(50).starts(video(3), 8) == [0]
    assert WindowChoice(50).starts(video(0), 8) == [0]


def test_parsing() -> None:
    assert WindowChoice.parse("all", 1) == WindowChoice(None, 1)
    assert WindowChoice.parse("8", 0) == WindowChoice(8, 0)
    assert [str(WindowChoice()), str(WindowChoice(8))] == ["all", "8"]


@pytest.mark.parametrize("text", ["0", "-1", "few", "", "1.5", "²"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="windows is"):
        WindowChoice.parse(text, 0)
