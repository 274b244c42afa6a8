import pytest

from coordtok.errors import ConfigError, DataError
from coordtok.inference.frame_range import FrameRange


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("100:140:5", (100, 140, 5)),
        ("0:7", (0, 7, 1)),
        ("12", (12, 13, 1)),
        (":", (0, None, 1)),
        ("5:", (5, None, 1)),
        (":5", (0, 5, 1)),
        ("::3", (0, None, 3)),
    ],
)
def test_what_a_user_types(text: str, parts: tuple[int, int | None, int]) -> None:
    assert FrameRange.parse(text) == FrameRange(*parts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "-3",
        "1.5",
        "1:2:3:4",
        "5:5",
        "9:2",
        "1:5:0",
        "-1:5",
        "1:-5",
        " 1:2",
        "²",
        "9" * 5000,
    ],
)
def test_what_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="frames") as caught:
        FrameRange.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wanted", [FrameRange(3, 29, 4), FrameRange(5), FrameRange(0, 30, 7)])
@pytest.mark.parametrize("length", [1, 4, 8, 100])
def test_windows_share_out_the_frames(wanted: FrameRange, length: int) -> None:
    parts = [wanted.within(first, first + length) for first in range(0, 40, length)]
    found = [wanted.time(number) for part in parts for number in part]
    whole = [frame for frame in found if frame < 40]
    assert whole == list(range(wanted.start, wanted.stop or 40, wanted.step))


@pytest.mark.parametrize(
    ("text", "rate", "times"),
    [
        ("3:6", "2", [3, 3.5, 4, 4.5, 5]),
        ("3:", "2.5", [3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8]),
        ("::3", "2", [0, 1.5, 3, 4.5, 6]),
        ("4", "8", [4]),
        ("0:7:5", "5/2", [0, 2, 4, 6]),
    ],
)
def test_times_between_frames(text: str, rate: str, times: list[float]) -> None:
    wanted = FrameRange.parse(text).at_rate(rate)
    total = 7 if wanted.stop is None else 100
    numbers = wanted.within(0, total)
    assert [float(wanted.time(number)) for number in numbers][: len(times)] == times
    if wanted.stop is not None:
        assert len(numbers) == len(times)
        wanted.check(wanted.stop)
    # None is lost where windows meet, on whichever side.
    for middle in range(total):
        low, high = wanted.within(0, middle + 1), wanted.within(middle + wanted.tick, total)
        assert [*low, *high] == list(numbers)


def test_times_that_a_short_video_lacks() -> None:
    wanted = FrameRange(0, 4, 5).at_rate("2")  # 0 and 2.5
    wanted.check(4)
    with pytest.raises(DataError, match="the video has 3,"):
        wanted.check(3)


@pytest.mark.parametrize("rate", ["1", "0", "-2", "65", "nan", "1/0", "two", "", "2" * 5000])
def test_rates_that_are_refused(rate: str) -> None:
    with pytest.raises(ConfigError, match="is not a number above 1 and up to 64"):
        FrameRange().at_rate(rate)


def test_where_the_last_wanted_frame_is() -> None:
    wanted = FrameRange(3, 29, 4)
    assert not wanted.ends_by(27)
    assert wanted.ends_by(28)
    assert not FrameRange(3).ends_by(10**9)


def test_a_video_that_is_too_short() -> None:
    FrameRange(3, 29, 4).check(28)
    FrameRange(3).check(4)
    for wanted, total in [(FrameRange(3, 29, 4), 27), (FrameRange(3), 3), (FrameRange(0, 2), 1)]:
        with pytest.raises(DataError, match=f"the video has {total},"):
            wanted.check(total)
