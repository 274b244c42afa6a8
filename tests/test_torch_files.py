"""Files of torch.save that are none."""

import io
import zipfile
from pathlib import Path

import pytest
import torch

from coordtok.torch_files import load_weights_only


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_name_without_an_end_is_refused_at_once(tmp_path: Path, as_zip: bool) -> None:
    """torch would look through its message about a name of 2 MB for hours."""
    path, content = tmp_path / "file.pth", io.BytesIO()
    torch.save({"a": torch.ones(2)}, content, _use_new_zipfile_serialization=as_zip)
    endless = b"c" + b"x" * 2_000_000 + b"\n" + b"y" * 100 + b"\n."
    if as_zip:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", endless)
            archive.writestr("archive/version", b"3\n")
    else:
        path.write_bytes(endless)
    with pytest.raises(ValueError, match="no end"):
        load_weights_only(path)
    path.write_bytes(content.getvalue())
    assert torch.equal(load_weights_only(path)["a"], torch.ones(2))
