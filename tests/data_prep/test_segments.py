import re

import numpy as np
import pytest

from coordtok.data.partition import segment_key, segment_lengths
from data_prep.segments import cut, squared_errors


def pictures(count):
    return [np.full((1, 1, 3), number % 256, np.uint8) for number in range(count)]


@pytest.mark.parametrize("count", [*range(1, 60), 128, 129])
def test_segments_lose_nothing_and_only_short_videos_are_short(count):
    clip, length = 4, 12
    segments = list(cut(pictures(count), length, clip))
    numbers = np.concatenate(segments)[:, 0, 0, 0]
    np.testing.assert_array_equal(numbers, np.arange(count) % 256)
    sizes = [len(segment) for segment in segments]
    assert sizes == segment_lengths(count, length, clip)
    assert all(size == length for size in sizes[:-1])
    assert sizes[-1] < length + clip
    assert sizes[-1] >= min(clip, count)


def test_a_long_film_takes_the_memory_of_a_segment():
    alive = 0
    most = 0

    class Frame(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def film():
        nonlocal alive, most
        for _ in range(500):
            alive += 1
            most = max(most, alive)
            yield np.zeros((1, 1, 3), np.uint8).view(Frame)

    assert sum(len(segment) for segment in cut(film(), 12, 4)) == 500
    assert most <= 12 + 4 + 13


def test_keys_are_plain_and_tell_everything_apart():
    names = ["a/x.mp4", "b/x.mp4", "x.y.z.mp4", "x.mkv", "it's \n 映画.mp4", "映画.mp4", "-.mp4"]
    keys = [segment_key(name, start) for name in names for start in (0, 512)]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in keys)
    assert segment_key("a/" + "long" * 100 + ".mp4", 0).startswith("longlong")
    assert len(segment_key("long" * 100, 10**9)) < 80


def test_squared_errors_are_exact_over_blocks():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 70, 4, 5, 3)).astype(np.uint8)
    rgb, luma = squared_errors(a, b)
    error = a.astype(np.int64) - b
    assert rgb == (error**2).sum()
    assert luma == ((error @ [218, 732, 74]) ** 2).sum()
