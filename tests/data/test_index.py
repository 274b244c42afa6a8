import json
from dataclasses import replace

import pytest

from coordtok.data.index import (
    UNEVEN,
    SampleEntry,
    ShardEntry,
    ShardIndex,
    VideoSpec,
    default_lanes,
    lane_sizes,
    unevenness,
)
from coordtok.errors import DataError


def make_index(shards=3, lanes=3):
    entries = tuple(
        ShardEntry(
            f"train-{number:06d}.tar",
            10240,
            f"{number:064x}",
            (SampleEntry(f"key{number}", 16, {"mp4": (512, 100), "json": (1536, 20)}),),
        )
        for number in range(shards)
    )
    codec = {"name": "h264", "crf": 18.0, "gop": 16, "pixel_format": "yuv420p"}
    return ShardIndex(VideoSpec(16, 128, 128, None), codec, lanes, entries)


def test_index_survives_json():
    index = make_index()
    again = ShardIndex.from_json(index.to_json(), "here")
    assert again == index
    assert again.fingerprint == index.fingerprint
    assert again.fingerprint == replace(again).fingerprint, "read and computed are one"
    assert again.samples == 3


def test_the_form_of_the_text_does_not_count():
    stored = json.loads(make_index().to_json())
    stored["note"] = "unknown fields of the whole are left out"
    text = json.dumps(stored, indent=2, sort_keys=True)
    again = ShardIndex.from_json(text, "here")
    assert again == make_index()
    assert again.fingerprint == make_index().fingerprint


def test_fingerprint_tells_any_difference_apart():
    index = make_index()
    others = [make_index(lanes=1), make_index(shards=4)]
    assert len({each.fingerprint for each in [index, *others]}) == 3


def put(*path_and_value):
    *path, last, value = path_and_value

    def change(stored):
        for step in path:
            stored = stored[step]
        stored[last] = value

    return change


BREAKAGES = {
    "version": (put("version", 2), "version"),
    "unsafe name": (put("shards", 0, "name", "../../etc/passwd.tar"), "shard name"),
    "option-like name": (put("shards", 0, "name", "-rf.tar"), "shard name"),
    "newline in name": (put("shards", 0, "name", "a.tar\n"), "shard name"),
    "same name twice": (put("shards", 0, "name", "train-000001.tar"), "one name"),
    "sha": (put("shards", 0, "sha256", "xyz"), "sha256"),
    "bytes are a bool": (put("shards", 0, "bytes", True), "bytes"),
    "member beyond end": (put("shards", 0, "samples", 0, 2, "mp4", [10000, 300]), "beyond"),
    "negative offset": (put("shards", 0, "samples", 0, 2, "mp4", [-1, 3]), "offset"),
    "no files": (put("shards", 0, "samples", 0, 2, {}), "no files"),
    "sample is short": (put("shards", 0, "samples", 0, ["key", 3]), "damaged"),
    "sample is no list": (put("shards", 0, "samples", 0, "key"), "list"),
    "frames": (put("shards", 0, "samples", 0, 1, 1.5), "frames"),
    "too many lanes": (put("lanes", 4), "lanes"),
    "no lanes": (put("lanes", 0), "lanes"),
    "fps": (put("video", "fps", -1), "fps"),
    "height": (put("video", "height", "128"), "height"),
    "video": (put("video", []), "damaged"),
    "codec": (put("codec", {}), "codec"),
    "unknown field": (put("shards", 0, "colour", "red"), "unknown field 'colour'"),
    "quiet edit": (put("shards", 0, "samples", 0, 1, 17), "fingerprint"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_a_lying_index_is_one_line_naming_the_file_and_the_fix(name):
    change, word = BREAKAGES[name]
    stored = json.loads(make_index().to_json())
    change(stored)
    with pytest.raises(DataError) as caught:
        ShardIndex.from_json(json.dumps(stored), "data/index.json")
    message = str(caught.value)
    assert word in message
    assert message.startswith("data/index.json")
    assert "verify_shards" in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "{}", "[" * 200_000])
def test_text_that_is_no_index_is_refused(text):
    with pytest.raises(DataError, match=r"^here "):
        ShardIndex.from_json(text, "here")


@pytest.mark.parametrize("field", ["video", "codec", "lanes", "shards", "fingerprint"])
def test_a_missing_field_is_refused(field):
    stored = json.loads(make_index().to_json())
    del stored[field]
    with pytest.raises(DataError):
        ShardIndex.from_json(json.dumps(stored), "here")


def test_two_samples_with_one_key_are_refused():
    stored = json.loads(make_index().to_json())
    stored["shards"][0]["samples"] *= 2
    with pytest.raises(DataError, match="one key"):
        ShardIndex.from_json(json.dumps(stored), "here")


@pytest.mark.parametrize(
    ("samples", "asked", "lanes"),
    [(1, 96, 1), (5, 96, 4), (7, 96, 6), (95, 96, 48), (10**6, 96, 96), (9, 10, 5), (7, 10**12, 5)],
)
def test_lanes_asked_for_are_lowered_only_where_one_would_be_empty(samples, asked, lanes):
    assert default_lanes(samples, asked) == lanes


@pytest.mark.parametrize(
    ("samples", "lanes"),
    [(1, 1), (5, 1), (14, 2), (79, 8), (96, 96), (97, 8), (960, 96), (999, 96)],
)
def test_default_lanes_are_even_by_the_rule_that_is_warned_about(samples, lanes):
    assert default_lanes(samples) == lanes
    assert unevenness([1] * samples, lanes) <= UNEVEN


def test_no_samples_make_no_lanes():
    with pytest.raises(DataError):
        default_lanes(0)


def test_lane_sizes_follow_the_shards_a_lane_owns():
    assert lane_sizes([5, 4, 1, 2], 2) == [6, 6]
