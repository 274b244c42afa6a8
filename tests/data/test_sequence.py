import json

import pytest

from coordtok.data.order import Cursor
from coordtok.data.sequence import LoaderState
from coordtok.data.shards import open_shards
from coordtok.errors import CheckpointError

STATE = LoaderState(
    14,
    (
        (Cursor(1, 0, 3), Cursor(2, 0, 0), Cursor(0, 5, 1)),
        (Cursor(0, 0, 0), Cursor(0, 0, 0), Cursor(0, 0, 2)),
    ),
)


def test_a_state_survives_json():
    assert LoaderState.from_json(json.loads(json.dumps(STATE.to_json()))) == STATE


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"position": -1, "cursors": [[[0, 0, 0]]]},
        {"position": 1.5, "cursors": [[[0, 0, 0]]]},
        {"position": 0, "cursors": []},
        {"position": 0, "cursors": [[]]},
        {"position": 0, "cursors": [[[0, 0]]]},
        {"position": 0, "cursors": [[[0, 0, "1"]]]},
        {"position": 0, "cursors": [[[0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]},
        {"position": 0, "cursors": 3},
        [],
    ],
)
def test_a_damaged_state_is_one_line(stored):
    with pytest.raises(CheckpointError, match="step_7 is damaged") as error:
        LoaderState.from_json(stored, "step_7")
    assert "\n" not in str(error.value)


def test_merging_takes_each_lane_from_its_rank():
    lanes = 6
    states = [
        LoaderState(12, (tuple(Cursor(rank, lane, 0) for lane in range(lanes)),))
        for rank in range(3)
    ]
    merged = LoaderState.merge(states)
    assert merged.position == 12
    assert merged.cursors == (tuple(Cursor(lane % 3, lane, 0) for lane in range(lanes)),)


def test_ranks_at_different_positions_are_not_merged():
    with pytest.raises(CheckpointError, match=r"different positions of the data \(\[14, 16\]\)"):
        LoaderState.merge([STATE, LoaderState(16, STATE.cursors)])


def test_the_start_has_the_lanes_that_datasets_share(write_shards, tmp_path):
    sources = [
        open_shards(str(write_shards(tmp_path / name, (1,) * lanes, lanes)))
        for name, lanes in (("a", 6), ("b", 4))
    ]
    start = LoaderState.start(sources)
    assert start == LoaderState(0, ((Cursor(0, 0, 0),) * 2,) * 2)


@pytest.mark.parametrize(("datasets", "lanes"), [(1, 3), (2, 4), (3, 3)])
def test_a_state_of_other_data_is_refused(datasets, lanes):
    start = LoaderState(0, ((Cursor(0, 0, 0),) * lanes,) * datasets)
    with pytest.raises(
        CheckpointError, match=f"2 datasets in 3 lanes, this run has {datasets} in {lanes}"
    ):
        STATE.check(start)


def test_data_that_changed_begin_an_epoch_of_their_own():
    start = LoaderState(0, ((Cursor(0, 0, 0),) * 4,) * 3)
    moved = STATE.at_next_epoch(start)
    assert moved.position == 14
    moved.check(start)
    assert [set(lanes) for lanes in moved.cursors] == [
        {Cursor(2, 0, 0)},
        {Cursor(1, 0, 0)},
        {Cursor(0, 0, 0)},
    ]
