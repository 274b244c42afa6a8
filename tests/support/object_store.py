"""A folder of this machine in place of an object store: no network, and failures on demand."""

import os
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry


class StandIn(LocalFileSystem):
    """What fsspec gives for s3:// meanwhile. As with the real ones, a file system may be used only
    in the process that made it."""

    protocol = "s3"
    url = "s3://bucket/shards"
    folder: Path
    requests: list[tuple[str, int | None, int | None]]
    """(file, first byte, end) of the reads of this process."""
    failures: list[Exception]
    """Raised by the next reads, one each."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.made_in = os.getpid()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).replace(cls.url, str(cls.folder))

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        assert self.made_in == os.getpid(), "made before the fork"
        return super().info(self._strip_protocol(path), **options)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **options: Any
    ) -> bytes:
        assert self.made_in == os.getpid(), "made before the fork"
        if self.failures:
            raise self.failures.pop(0)
        self.requests.append((Path(path).name, start, end))
        return super().cat_file(path, start, end, **options)


def put_in_place_of_s3(monkeypatch: pytest.MonkeyPatch, folder: Path) -> type[StandIn]:
    """Have s3:// URLs below `StandIn.url` read from `folder`."""
    facts = {"folder": folder, "requests": [], "failures": []}
    made = type("FolderAsS3", (StandIn,), facts)
    monkeypatch.setitem(_registry, "s3", made)
    return made
