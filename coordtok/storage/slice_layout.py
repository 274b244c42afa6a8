"""Which slices lie in which file, and who reads what of them: arithmetic, before any file is there.

Every rank owns a span of every flattened parameter (of some none) and writes one file of them, with
a slice of each kind for every span. A rank of whatever run reads the spans that its own overlap.
Saving and loading decide by these functions, and plans count with them what ranks will write and
read.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from coordtok.storage.slice_files import ITEM, Span, header_size, read_for

Layout = Mapping[str, Span]
"""What one rank owns, by parameter."""

MASTER = "master"
EMA_KIND = "ema"
STATE_KIND = "optimizer."
"""Kinds of slices: weights as trained, their average, and (with its name behind it) a state of the
optimiser."""


class Run(NamedTuple):
    """`files` files, from number `file` on, which hold `length` numbers each of a parameter, one
    after the other from `start` on."""

    file: int
    start: int
    length: int
    files: int

    @property
    def stop(self) -> int:
        return self.start + self.length * self.files


class Read(NamedTuple):
    """What to read of a parameter in a file: `wanted` of the span that the file holds."""

    name: str
    held: Span
    wanted: Span


class Cost(NamedTuple):
    """What saving or loading costs one rank."""

    files: int
    """Files of slices that are written or opened."""
    bytes: int
    """Written or read, headers included."""


def file_name(rank: int) -> str:
    """The file of slices that a rank writes."""
    return f"rank_{rank:05d}.safetensors"


def key_of(kind: str, name: str) -> str:
    """What a slice is called in a file."""
    return f"{kind}/{name}"


def runs_of(layouts: Sequence[Layout]) -> dict[str, list[Run]]:
    """Which file holds what of each parameter, in order, when rank r writes file r."""
    spans: dict[str, list[tuple[Span, int]]] = {}
    for rank, layout in enumerate(layouts):
        for name, span in layout.items():
            spans.setdefault(name, []).append((span, rank))
    return {name: list(_merged(sorted(found))) for name, found in spans.items()}


def _merged(spans: Iterable[tuple[Span, int]]) -> Iterator[Run]:
    run: Run | None = None
    for span, file in spans:
        if run and (run.stop, run.length, run.file + run.files) == (span.start, span.size, file):
            run = run._replace(files=run.files + 1)
            continue
        if run:
            yield run
        run = Run(file, span.start, span.size, 1)
    if run:
        yield run


def reads_of(held: Mapping[str, Sequence[Run]], own: Layout) -> dict[int, list[Read]]:
    """What to read of each file, so that a rank has all of its `own` spans."""
    reads: dict[int, list[Read]] = {}
    for name, span in own.items():
        for run in held[name]:
            first = max(0, (span.start - run.start) // run.length)
            last = min(run.files, math.ceil((span.stop - run.start) / run.length))
            for number in range(first, last):
                start = run.start + number * run.length
                there = Span(start, start + run.length)
                read = Read(name, there, there.overlap(span))
                reads.setdefault(run.file + number, []).append(read)
    return reads


def spans_of_file(layout: Layout, kinds: Mapping[str, Sequence[str]]) -> dict[str, Span]:
    """The slices in the file of a rank that owns `layout`, in order, when every parameter has its
    `kinds`."""
    return {key_of(kind, name): layout[name] for name in sorted(layout) for kind in kinds[name]}


def save_cost(layout: Layout, kinds: Mapping[str, Sequence[str]]) -> Cost:
    """What a rank that owns `layout` writes."""
    spans = spans_of_file(layout, kinds)
    return Cost(1, header_size(spans) + share_bytes(layout, kinds))


def share_bytes(layout: Layout, kinds: Mapping[str, Sequence[str]]) -> int:
    """Of all kinds of what a rank owns."""
    return sum(span.size * len(kinds[name]) for name, span in layout.items()) * ITEM


def load_cost(
    held: Mapping[str, Sequence[Run]],
    header_sizes: Sequence[int],
    own: Layout,
    kinds: Mapping[str, Sequence[str]],
) -> Cost:
    """What a rank that is to own `own` reads of files with headers of these sizes."""
    reads = reads_of(held, own)
    numbers = sum(
        read_for(read.held, read.wanted).size * len(kinds[read.name])
        for of_file in reads.values()
        for read in of_file
    )
    return Cost(len(reads), sum(header_sizes[file] for file in reads) + numbers * ITEM)
