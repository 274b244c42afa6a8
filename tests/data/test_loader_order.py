"""The global sequence never changes: simulated over many settings, with a resume at every step.

Ranks are loaders of one process here, and a rank's workers take turns in it; real worker processes
are in test_loader_processes.py.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from coordtok.data.loader import TrainLoader
from coordtok.data.order import START, LaneOrder, choose_dataset, shared_lanes
from coordtok.data.sequence import LoaderState
from coordtok.data.shards import OpenedShards, open_shards
from coordtok.data.video_reader import VideoWindows

READ = VideoWindows(frames=4, height=2, width=4)


@pytest.fixture(autouse=True)
def workers_in_turns(monkeypatch):
    """Worker j mod n reads item j, as torch's DataLoader has it, without processes."""

    def read_ahead(series, form, *, workers, prefetch):
        items = [series(worker, max(workers, 1)) for worker in range(max(workers, 1))]
        for own in itertools.cycle(items):
            yield next(own)

    monkeypatch.setattr("coordtok.data.loader.read_ahead", read_ahead)


@dataclass(frozen=True)
class Dataset:
    opened: OpenedShards
    unreadable: frozenset[str]


@dataclass(frozen=True)
class Run:
    """A training run's data, whatever its ranks."""

    datasets: tuple[Dataset, ...]
    seed: int
    shuffle_block: int
    batch: int

    @property
    def sources(self) -> list[OpenedShards]:
        return [dataset.opened for dataset in self.datasets]

    @property
    def lanes(self) -> int:
        return shared_lanes([source.index.lanes for source in self.sources])

    def loader(self, rank=0, ranks=1, micro_batch=1, workers=0, state=None) -> TrainLoader:
        return TrainLoader(
            self.sources,
            READ,
            seed=self.seed,
            rank=rank,
            world_size=ranks,
            micro_batch=micro_batch,
            workers=workers,
            prefetch=2,
            shuffle_block=self.shuffle_block,
            state=state,
        )


def random_run(rng: np.random.Generator, folder: Path, write_shards) -> Run:
    datasets = []
    base = int(rng.choice([1, 2, 3, 4, 6]))
    for number in range(int(rng.choice([1, 1, 2, 3]))):
        lanes = base * int(rng.choice([1, 2]))
        sizes = rng.integers(0, 6, lanes * int(rng.integers(1, 4)))
        sizes[:lanes] = np.maximum(sizes[:lanes], 2)
        keys = [f"s{s:03d}-{i:03d}" for s, size in enumerate(sizes) for i in range(size)]
        # One readable sample is left in every lane.
        spoilt = [key for key in keys if rng.random() < 0.25 and not key.endswith("-000")]
        location = write_shards(
            folder / f"dataset{number}",
            sizes.tolist(),
            lanes,
            damaged=spoilt[::2],
            damaged_headers=spoilt[1::2],
        )
        weight = float(rng.choice([1.0, 2.5]))
        datasets.append(Dataset(open_shards(str(location), weight), frozenset(spoilt)))
    lanes = shared_lanes([dataset.opened.index.lanes for dataset in datasets])
    batch = int(rng.choice([lanes, 2 * lanes, rng.integers(1, 2 * lanes + 1)]))
    return Run(tuple(datasets), int(rng.integers(100)), int(rng.integers(1, 5)), batch)


def expected_ids(run: Run) -> Iterator[tuple]:
    """The sequence as the contract defines it: one lane after the other, one sample each."""
    lanes = [
        [readable(run, dataset, lane) for lane in range(run.lanes)] for dataset in run.datasets
    ]
    weights = [source.weight for source in run.sources]
    for k in itertools.count():
        dataset = choose_dataset(k, weights, run.seed)
        yield dataset, *next(lanes[dataset][k % run.lanes])


def readable(run: Run, dataset: Dataset, lane: int) -> Iterator[tuple[int, int, str]]:
    shards = dataset.opened.index.shards
    order = LaneOrder(
        [len(shard.samples) for shard in shards],
        lanes=run.lanes,
        lane=lane,
        seed=run.seed,
        shuffle_block=run.shuffle_block,
    )
    cursor = START
    while True:
        slot = order.slot(cursor)
        key = shards[slot.shard].samples[slot.sample].key
        if key not in dataset.unreadable:
            yield lane, slot.epoch, key
        cursor = slot.after


def batch_splits(run: Run) -> list[tuple[int, int]]:
    """All (ranks, micro-batch) that share this run's batch."""
    return [
        (ranks, micro_batch)
        for ranks in range(1, run.lanes + 1)
        if run.lanes % ranks == 0 and run.batch % ranks == 0
        for micro_batch in range(1, run.batch // ranks + 1)
        if run.batch % (ranks * micro_batch) == 0
    ]


def global_batches(run: Run, ranks, micro_batch, workers, state=None):
    """Yield (ids and pixels of all ranks as a set, skipped keys, merged state) for each batch."""
    loaders = [iter(run.loader(rank, ranks, micro_batch, workers, state)) for rank in range(ranks)]
    while True:
        clips, skipped, states = Counter(), Counter(), []
        for loader in loaders:
            for _ in range(run.batch // (ranks * micro_batch)):
                batch, after = next(loader)
                pixels = batch.data["video"][:, :, 0, 0, 0].tolist()
                clips.update((*one, tuple(window)) for one, window in zip(batch.ids, pixels))
                skipped.update(sample.key for sample in batch.skipped)
            states.append(after)
        yield clips, skipped, LoaderState.merge(states)


@pytest.mark.parametrize("number", range(25))
def test_global_batches_never_differ(number, write_shards, tmp_path):
    rng = np.random.default_rng(number)
    run = random_run(rng, tmp_path, write_shards)
    samples = sum(source.index.samples for source in run.sources)
    steps = min(-(-2 * samples // run.batch) + 1, 40)
    reference = list(itertools.islice(global_batches(run, 1, run.batch, 0), steps))

    ids = expected_ids(run)
    for clips, _, state in reference:
        wanted = Counter(one[1:] for one in itertools.islice(ids, run.batch))
        assert Counter({one[:3]: n for one, n in clips.items()}) == wanted
        assert LoaderState.from_json(state.to_json()) == state

    splits = batch_splits(run)
    for ranks, micro_batch in (splits[rng.integers(len(splits))] for _ in range(3)):
        workers = int(rng.integers(0, 5))
        found = itertools.islice(global_batches(run, ranks, micro_batch, workers), steps)
        assert list(found) == reference

    for step in range(steps - 1):
        ranks, micro_batch = splits[rng.integers(len(splits))]
        workers = int(rng.integers(0, 5))
        resumed = global_batches(run, ranks, micro_batch, workers, reference[step][2])
        assert next(resumed) == reference[step + 1]
        assert step + 2 == steps or next(resumed) == reference[step + 2]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_position_inside_a_round_of_the_lanes_is_resumed(write_shards, tmp_path, ranks):
    """A batch that the lanes do not divide, on another number of ranks: no rank starts at 0."""
    folder = write_shards(tmp_path, (5, 4, 6, 3, 5, 4), 6)
    dataset = Dataset(open_shards(str(folder)), frozenset())
    run = Run((dataset,), seed=1, shuffle_block=2, batch=1)
    sequence = list(itertools.islice(global_batches(run, 1, 1, 0), 40))
    for done in range(1, 30):
        state = sequence[done - 1][2]
        assert state.position == done
        resumed = [iter(run.loader(rank, ranks, 1, 2, state)) for rank in range(ranks)]
        found = Counter()
        for loader in resumed:
            batch, _ = next(loader)
            found.update(batch.ids)
        wanted = Counter()
        for clips, _, _ in sequence[done : done + ranks]:
            wanted.update(one[:3] for one in clips)
        assert found == wanted


@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 1), (2, 3), (6, 2)])
def test_every_key_is_seen_once_in_each_epoch_of_its_lane(write_shards, tmp_path, ranks, workers):
    folder = write_shards(tmp_path, (5, 4, 6, 3, 5, 4, 1, 2, 3, 0, 2, 6), 6)
    dataset = Dataset(open_shards(str(folder)), frozenset())
    run = Run((dataset,), seed=3, shuffle_block=2, batch=6)
    seen = Counter()
    lane_of_key = {}
    for clips, _, _ in itertools.islice(global_batches(run, ranks, 1, workers), 36):
        for lane, epoch, key, _ in clips.elements():
            seen[key, epoch] += 1
            assert lane_of_key.setdefault(key, lane) == lane
    index = dataset.opened.index
    for shard_number, shard in enumerate(index.shards):
        for sample in shard.samples:
            assert lane_of_key[sample.key] == shard_number % 6
            assert [seen[sample.key, epoch] for epoch in (0, 1)] == [1, 1]


def test_skipped_samples_are_named_with_the_batch_that_follows_them(write_shards, tmp_path):
    bad = ["s000-001", "s001-003", "s002-000"]
    folder = write_shards(tmp_path, (4, 4, 4), 3, damaged=bad[:2], damaged_headers=bad[2:])
    run = Run((Dataset(open_shards(str(folder)), frozenset(bad)),), 0, 2, batch=3)
    loader = iter(run.loader(micro_batch=3))
    # Seven steps are two epochs of three readable samples, and what follows their end.
    named = Counter(str(one) for _ in range(7) for one in next(loader)[0].skipped)
    assert len(named) == 3
    assert set(named.values()) <= {2, 3}
    for key in bad:
        (text,) = [text for text in named if text.startswith(key)]
        assert f"train-{int(key[1:4]):06d}.tar" in text
        assert str(folder) in text
        assert "\n" not in text


def test_windows_do_not_depend_on_the_position_in_the_sequence(write_shards, tmp_path):
    """A sample's window is drawn from its lane, epoch and key alone."""
    few = write_shards(tmp_path / "few", (4, 4), 2)
    runs = [
        Run((Dataset(open_shards(str(few)), frozenset()),), 5, 2, batch=2),
        Run((Dataset(open_shards(str(few)), frozenset()),) * 2, 5, 2, batch=2),
    ]
    windows = []
    for run in runs:
        batches = itertools.islice(global_batches(run, 1, 2, 0), 12)
        windows.append({one[:3]: one[3] for clips, _, _ in batches for one in clips})
    shared = windows[0].keys() & windows[1].keys()
    assert len(shared) >= 8
    assert all(windows[0][one] == windows[1][one] for one in shared)
    assert len({window[0] for window in windows[0].values()}) > 8
