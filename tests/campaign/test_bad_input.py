"""A part of the campaign that is always run: a dozen cases of the commands that need no trained
model. A number makes one case."""

from itertools import count, islice
from pathlib import Path

import pytest

from tests.campaign.bad_input import GOOD, outcomes
from tests.campaign.cases import prepare, setup_of
from tests.campaign.good_input import RECIPES, GoodInputs
from tests.support.ranks import warm_python

SEED = 7
UNTRAINED = {"raw", "shards"}
CASES = list(
    islice(
        (
            number
            for number in count()
            if RECIPES.keys() & setup_of(number).inputs.split() <= UNTRAINED
        ),
        12,
    )
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> GoodInputs:
    return GoodInputs(tmp_path_factory.mktemp("campaign") / "good", warm_python())


def test_bad_input_ends_in_a_skip_or_a_line(good: GoodInputs) -> None:
    found = list(outcomes(CASES, SEED, good, warm_python(), jobs=2))
    assert len(found) == len(CASES)
    assert [str(outcome) for outcome in found if outcome.result not in GOOD] == []


@pytest.mark.parametrize("number", CASES)
def test_a_number_makes_one_case(good: GoodInputs, tmp_path: Path, number: int) -> None:
    made = []
    for name in ("first", "second"):
        case = prepare(SEED, number, good, tmp_path / name)
        contents = {
            str(path.relative_to(case.folder)): path.read_bytes()
            for path in case.folder.rglob("*") if path.is_file()
        }  # fmt: skip
        made.append((case.kind, case.detail, case.conditions, contents))
        case.close()
    assert made[0] == made[1]
