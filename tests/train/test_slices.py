"""Slices in files: read back however they were cut, and every damage told in a line."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from coordtok.errors import CheckpointError
from coordtok.scaling.checkpoints import zero_layouts
from coordtok.storage.manifests import measure, write_manifest
from coordtok.storage.slice_files import PIECE, Span
from coordtok.storage.slice_layout import file_name, reads_of, runs_of
from coordtok.train.checkpoint import read_whole, write_facts
from coordtok.train.checkpoint_index import DamagedCheckpoint, Index, read_index
from coordtok.train.slices import Slice, fill_slices, write_file

LONG = PIECE // 2
"""Numbers of `a`, two pieces of bytes."""
VALUES = {"a": torch.arange(float(LONG)), "b": torch.arange(6.0).view(2, 3)}
SHAPES = {name: tuple(value.shape) for name, value in VALUES.items()}


def write_checkpoint(folder: Path, ranks: int = 3, stage: int = 1, sign: int = 1) -> Path:
    """Of `VALUES` and their doubles, as that many ranks write it."""
    folder.mkdir()
    groups = [{name: value.numel() for name, value in VALUES.items()}]
    holdings = []
    for rank, layout in enumerate(zero_layouts(groups, ranks, stage)):
        masters = {
            name: Slice(span.start, sign * VALUES[name].flatten()[span.start : span.stop])
            for name, span in layout.items()
        }
        doubles = {name: Slice(start, 2 * values) for name, (start, values) in masters.items()}
        slices = {"master": masters, "optimizer.double": doubles}
        counts = {name: {"step": 3.0} for name in layout}
        holdings.append(write_file(slices, counts, folder / file_name(rank)))
    write_facts(folder, Index.of("Doubler", SHAPES, holdings), {})
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


@pytest.mark.parametrize(("ranks", "stage"), [(1, 1), (3, 2), (4, 3), (7, 3)])
def test_everything_is_read_back_and_no_more_than_is_needed(
    tmp_path: Path, ranks: int, stage: int
) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoint", ranks, stage)
    for kind, factor in (("master", 1), ("optimizer.double", 2)):
        found = read_whole(checkpoint, kind)
        assert all(torch.equal(found[name], factor * value) for name, value in VALUES.items())
    own = Slice(LONG // 2 + 5, torch.empty(10))
    cost = fill_slices({"master": {"a": own}}, checkpoint, read_index(checkpoint))
    assert torch.equal(own.values, VALUES["a"][own.start :][:10])
    assert cost.files == 1
    assert cost.bytes <= PIECE + 8000


def test_any_safetensors_reader_reads_a_file(checkpoint: Path) -> None:
    with safe_open(checkpoint / "rank_00000.safetensors", framework="pt") as file:
        starts = json.loads(file.metadata()["starts"])
        assert starts["master/a"] == 0
        values = file.get_tensor("optimizer.double/a")
        assert torch.equal(values, 2 * VALUES["a"][: len(values)])


def test_reads_are_the_whole_of_every_span_once() -> None:
    numbers = random.Random(0)
    for _ in range(200):
        sizes = {name: numbers.randint(1, 40) for name in "abcde"}
        groups = [{name: sizes[name] for name in "ab"}, {name: sizes[name] for name in "cde"}]
        held, own = (
            zero_layouts(groups, numbers.randint(1, 9), numbers.randint(1, 3)) for _ in range(2)
        )
        for layouts in (held, own):
            for name, size in sizes.items():
                spans = sorted(layout[name] for layout in layouts if name in layout)
                assert [span.start for span in spans] == [0, *(span.stop for span in spans[:-1])]
                assert spans[-1].stop == size
        for layout in own:
            read: dict[str, set[int]] = {name: set() for name in layout}
            for file, reads in reads_of(runs_of(held), layout).items():
                for name, there, wanted in reads:
                    assert held[file][name] == there
                    assert not read[name] & set(range(*wanted))
                    read[name] |= set(range(*wanted))
            assert read == {name: set(range(*span)) for name, span in layout.items()}


def test_small_parameters_have_no_share_on_the_last_ranks() -> None:
    assert zero_layouts([{"a": 5}], 4, 3) == [
        {"a": Span(0, 2)}, {"a": Span(2, 4)}, {"a": Span(4, 5)}, {},
    ]  # fmt: skip


def flip(name: str, place: int) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        data = bytearray((checkpoint / name).read_bytes())
        data[place] ^= 1
        (checkpoint / name).write_bytes(data)

    return damage


def swap(checkpoint: Path) -> None:
    first, second = (checkpoint / file_name(rank) for rank in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def take_from_another(checkpoint: Path) -> None:
    other = write_checkpoint(checkpoint.with_name("other"), sign=-1)
    (checkpoint / file_name(1)).write_bytes((other / file_name(1)).read_bytes())


def truncate(checkpoint: Path) -> None:
    path = checkpoint / file_name(2)
    path.write_bytes(path.read_bytes()[:-4])


def lie(**changes: object) -> Callable[[Path], None]:
    """An index that says something else, and whose checksum is right."""

    def damage(checkpoint: Path) -> None:
        stored = json.loads((checkpoint / "index.json").read_text())
        stored["parameters"]["b"] |= changes
        (checkpoint / "index.json").write_text(json.dumps(stored))
        facts = {name: measure(checkpoint / name) for name in ("index.json", "state.json")}
        write_manifest(checkpoint / "manifest.json", facts)

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip("rank_00000.safetensors", -1), "checksum of rank_00000.safetensors differs, in"),
        (flip("rank_00000.safetensors", 100), "rank_00000.safetensors differs, in its header"),
        (flip("rank_00000.safetensors", 7), "rank_00000.safetensors differs, in its header"),
        (flip("index.json", 20), "checksum of index.json differs"),
        (flip("state.json", 0), "checksum of state.json differs"),
        (flip("manifest.json", 0), "manifest.json is missing or unreadable"),
        (swap, "rank_00000.safetensors "),
        (take_from_another, "checksum of rank_00001.safetensors differs, in its header"),
        (truncate, r"rank_00002.safetensors has \d+ bytes instead of"),
        (lambda folder: (folder / file_name(1)).unlink(), "rank_00001.safetensors is missing"),
        (lambda folder: (folder / "index.json").unlink(), "index.json is missing"),
        (lie(runs=[[0, 0, 3, 1]]), "the parts of b are not the whole of it, once"),
        (lie(runs=[[0, 0, 3, 1], [1, 2, 4, 1]]), "the parts of b are not the whole of it"),
        (lie(runs=[[0, 0, 1, 6]]), "the parts of b are not the whole of it, once"),
        (lie(runs=[[0, 0, 6, 1]]), "rank_00000.safetensors does not hold master/b from 0 on"),
        (lie(shape=[2**50], runs=[[0, 0, 2**50, 1]]), "numbers, more than its files hold"),
        (lie(shape=[10**30]), "index.json is of no use"),
        (lie(shape=[-2, -3]), "-2 is no size"),
        (lie(runs=[[0, 0, "6", 1]]), "'6' is no size"),
        (lie(runs=7), "index.json is of no use: TypeError"),
        (lie(kinds=["master", "ema"]), "does not hold ema/b"),
    ],
)
def test_every_damage_is_a_line(
    checkpoint: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(checkpoint)
    with pytest.raises(DamagedCheckpoint, match=message) as caught:
        read_everything(checkpoint)
    assert str(caught.value).startswith(f"{checkpoint} is damaged (")
    assert "\n" not in str(caught.value)


def read_everything(checkpoint: Path) -> None:
    for kind in ("master", "optimizer.double", "ema"):
        read_whole(checkpoint, kind)


def test_a_checkpoint_of_before_is_refused_by_the_name_of_what_converts_it(
    checkpoint: Path,
) -> None:
    (checkpoint / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"pickle")
    facts = {path.name: measure(path) for path in checkpoint.glob("*.pt")}
    write_manifest(checkpoint / "manifest.json", facts)
    with pytest.raises(CheckpointError, match=r"holds pickles: .* scripts/convert_checkpoint\.py"):
        read_index(checkpoint)
