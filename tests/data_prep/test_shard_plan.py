import numpy as np
import pytest

from data_prep.shard_plan import Sample, plan_shards

MILLION = 1_000_000


def samples(count, size=1000):
    return [Sample(f"key-{number:05d}", size, "{}") for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 5, 13, 96, 97, 200, 1000])
@pytest.mark.parametrize("per_shard", [1, 3, 50, None])
def test_every_sample_once_in_even_lanes(options, count, per_shard):
    plan = plan_shards(samples(count), options("in", "out", samples_per_shard=per_shard))
    keys = [sample.key for shard in plan.shards for sample in shard.samples]
    assert sorted(keys) == [sample.key for sample in samples(count)]
    assert 96 % plan.lanes == 0
    assert len(plan.shards) % plan.lanes == 0
    lanes = [
        sum(len(shard.samples) for shard in plan.shards[lane :: plan.lanes])
        for lane in range(plan.lanes)
    ]
    assert max(lanes) - min(lanes) <= 1
    assert min(len(shard.samples) for shard in plan.shards) >= 1
    if per_shard is not None:
        assert max(len(shard.samples) for shard in plan.shards) <= per_shard + 1


def test_the_size_of_shards_is_about_as_asked(options):
    made = options("in", "out", lanes=4, shard_size=10)
    plan = plan_shards(samples(4000, size=100_000), made)
    sizes = [sum(sample.bytes for sample in shard.samples) for shard in plan.shards]
    np.testing.assert_allclose(sizes, 10 * MILLION, rtol=0.05)


def test_the_plan_depends_on_keys_and_seed_alone(options):
    made = options("in", "out", lanes=4)
    assert plan_shards(samples(50), made) == plan_shards(samples(50)[::-1], made)
    other = plan_shards(samples(50), options("in", "out", lanes=4, seed=1))
    assert other != plan_shards(samples(50), made)


def test_neighbours_are_dealt_apart(options):
    plan = plan_shards(samples(960), options("in", "out", lanes=4))
    first = [int(sample.key[-5:]) for sample in plan.shards[0].samples]
    assert abs(np.mean(first) - 480) < 60
    assert first != sorted(first)
