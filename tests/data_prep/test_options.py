import subprocess
import sys
from fractions import Fraction

import pytest

from coordtok.errors import ConfigError
from data_prep.options import BuildOptions, parse

NEEDED = ["--input", "in", "--output", "out"]


def test_defaults_are_those_of_the_record():
    options, run = parse(NEEDED)
    assert options == BuildOptions(options.input, options.output)
    assert run.workers >= 1
    assert run.distributor == "local"


def test_by_default_there_is_a_worker_for_each_core_this_process_may_use(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 4, 5})
    assert parse(NEEDED)[1].workers == 3


def test_ranges_and_rates():
    options, _ = parse([*NEEDED, "--frames", "9360:11700", "--fps", "30000/1001"])
    assert options.frames == (9360, 11700)
    assert options.fps == Fraction(30000, 1001)
    assert parse([*NEEDED, "--frames", ":100"])[0].frames == (0, 100)
    assert parse([*NEEDED, "--frames", "5:"])[0].frames == (5, None)


@pytest.mark.parametrize(
    "flags",
    [
        ["--height", "0"],
        ["--height", "big"],
        ["--crf", "60"],
        ["--gop", "0"],
        ["--frames", "9:3"],
        ["--frames", "abc"],
        ["--fps", "0"],
        ["--fps", "1/0"],
        ["--clip-frames", "0"],
        ["--samples-per-shard", "0"],
        ["--workers", "0"],
        ["--lanes", "0"],
        ["--prefix", "../x"],
        ["--prefix", "-x"],
        ["--height", "33", "--pixel-format", "yuv420p"],
        ["--codec", "vp9"],
        ["--colour", "1"],
        ["--dataset", "ucf101"],
    ],
)
def test_mistakes_are_one_line_naming_the_option(flags):
    with pytest.raises(ConfigError) as caught:
        parse([*NEEDED, *[f"{flags[0]}={flags[1]}", *flags[2:]]])
    assert "\n" not in str(caught.value)
    assert flags[1] in str(caught.value) or flags[0] in str(caught.value)


def test_what_is_needed_is_named():
    with pytest.raises(ConfigError, match="--input"):
        parse([])


def test_preparing_data_loads_no_torch():
    check = (
        "import sys, data_prep.build_shards, data_prep.verify_shards; "
        "heavy = {'torch', 'deepspeed', 'webdataset', 'wandb', 'ray'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
