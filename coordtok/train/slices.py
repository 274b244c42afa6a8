"""Slices of flattened parameters, in memory and in the files of a checkpoint.

Each rank writes one file of what it owns; any number of ranks reads its own slices out of whichever
files hold parts of them (`coordtok.storage.slice_layout` says which).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from coordtok.storage.slice_files import SliceFile, Span, write_slices
from coordtok.storage.slice_layout import Cost, file_name, key_of, reads_of, spans_of_file
from coordtok.train.checkpoint_index import DamagedCheckpoint, Holding, Index


class Slice(NamedTuple):
    """Part of a flattened parameter: `values` (n,) are its elements `start` to `start + n`."""

    start: int
    values: torch.Tensor

    @property
    def span(self) -> Span:
        return Span(self.start, self.start + self.values.numel())


Slices = Mapping[str, Mapping[str, Slice]]
"""By kind (`coordtok.train.checkpoint_index`), then by parameter name."""


def write_file(slices: Slices, counts: Mapping[str, Mapping[str, float]], path: Path) -> Holding:
    """Write `slices`, as fp32, to the file `path`, one after the other; what there is now.

    counts: the optimiser's states that are one number, by parameter and name.

    Raises:
        OSError: it cannot be written; nothing of it remains.
    """
    by_key = {key_of(kind, name): each for kind, of in slices.items() for name, each in of.items()}
    layout = {name: piece.span for of in slices.values() for name, piece in of.items()}
    kinds = {name: [kind for kind in slices if name in slices[kind]] for name in layout}
    spans = spans_of_file(layout, kinds)
    facts = write_slices(path, spans, lambda key: _bytes_of(by_key[key].values))
    return Holding(facts, layout, kinds, counts)


def _bytes_of(values: torch.Tensor) -> memoryview:
    host = values.detach().to("cpu", torch.float32).contiguous()
    return host.view(torch.uint8).numpy().data


@torch.no_grad()
def fill_slices(slices: Slices, checkpoint: Path, index: Index) -> Cost:
    """Copy into `slices` what a checkpoint holds of them; the files that were opened, and the bytes
    that were read of them.

    Raises:
        DamagedCheckpoint: what was read is not as it was written.
    """
    own = {name: piece.span for kind in slices.values() for name, piece in kind.items()}
    total = Cost(0, 0)
    for number, reads in reads_of(index.runs, own).items():
        path = checkpoint / file_name(number)
        try:
            with SliceFile(path, index.files[number]) as file:
                for kind, of_kind in slices.items():
                    for read in reads:
                        if read.name in of_kind:
                            _fill(of_kind[read.name], file, key_of(kind, read.name), read.wanted)
                total = Cost(total.files + 1, total.bytes + file.bytes_read)
        except ValueError as error:
            raise DamagedCheckpoint(f"{checkpoint} is damaged ({error})") from None
    return total


def _fill(own: Slice, file: SliceFile, key: str, wanted: Span) -> None:
    for piece, data in file.read(key, wanted):
        part = piece.overlap(wanted)
        values = torch.frombuffer(data, dtype=torch.float32)
        own.values[part.start - own.start : part.stop - own.start].copy_(
            values[part.start - piece.start : part.stop - piece.start]
        )
