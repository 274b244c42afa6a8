"""Files of torch.save from anywhere, read without trusting them.

Such a file is a pickle, which can run any code when it is loaded, and reading a damaged one raises
what it likes. The one guard is here; callers say in their errors what helps.
"""

import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from coordtok.errors import one_line
from coordtok.storage.files import open_regular

_LONGEST_NAME = 1000
"""Characters of what a pickle calls."""
_PICKLES = 5
"""At the beginning of a file that is no zip."""


class WantsToRun(ValueError):
    """A pickle wants to call what is neither a tensor nor a plain container."""

    def __init__(self, called: str) -> None:
        super().__init__(f"it wants to call {called}")
        self.called = called


def load_weights_only(path: Path, also: Sequence[type] = ()) -> Any:
    """What torch.save wrote: tensors, plain containers and the harmless classes of `also`, nothing
    else. Tensors stay on disk until they are used, where the file's format allows.

    Raises:
        OSError: it cannot be read, or is no regular file.
        WantsToRun: it needs more than that.
        ValueError: it is damaged, or no file of torch.save.
    """
    try:
        open_regular(path).close()
        is_zip = _is_stored_zip(path)
        _check_names(path, is_zip)
        # The warning is of the pickle's version, beside which the error says all there is to say.
        with torch.serialization.safe_globals([*also]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except OSError:
        raise
    except Exception as error:
        called = re.search(r"(?:GLOBAL|class|function) `?([\w.]+)", str(error))
        if called is not None:
            raise WantsToRun(called[1]) from None
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise ValueError(one_line(reason)[:200] or type(error).__name__) from None


def has_its_values(tensor: torch.Tensor) -> bool:
    """Whether each value of a tensor has a place of its own, in memory or on disk: in such a file
    one number may stand for a tensor of any size."""
    if tensor.layout != torch.strided or tensor.is_meta:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _is_stored_zip(path: Path) -> bool:
    """Whether a file is a zip; ValueError where its entries are compressed, as torch.save writes
    none: they may hold a thousand times what the file does."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        if any(each.compress_type != zipfile.ZIP_STORED for each in file.infolist()):
            raise ValueError("its entries are compressed")
    return True


def _check_names(path: Path, is_zip: bool) -> None:
    """ValueError where a name has no end: torch looks through what it says of one for hours."""
    for pickle in _pickles(path, is_zip):
        try:
            endless = any(
                op.name in ("GLOBAL", "INST") and len(str(name)) > _LONGEST_NAME
                for op, name, _ in pickletools.genops(pickle)
            )
        except Exception:  # of whatever it is, torch says so
            return
        if endless:
            raise ValueError("a name in it has no end")


def _pickles(path: Path, is_zip: bool) -> Iterator[IO[bytes]]:
    if not is_zip:
        with path.open("rb") as file:
            yield from (file for _ in range(_PICKLES))
        return
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                with archive.open(name) as file:
                    yield file
