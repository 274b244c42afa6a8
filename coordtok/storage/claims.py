"""What an output folder is being filled with, written down before anything else in it.

The command that is run again after it was killed goes on only if it would do the same.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordtok.errors import ConfigError, DataError
from coordtok.storage.files import remove_partial, write_whole


class Claim:
    """The file NAME in a folder: the settings of its contents, and when they are complete a
    summary."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        """settings: plain JSON."""
        self._folder, self._path, self._settings = folder, folder / name, dict(settings)

    def take(self) -> dict[str, Any] | None:
        """Claim the folder for these settings, or go on with it.

        What a killed command left half-written is removed. Returns the summary of a complete
        folder.

        Raises:
            ConfigError: it was begun with other settings.
            DataError: it holds something else, or cannot be written.
        """
        remove_partial(self._folder, self._path.name)
        if not self._path.exists():
            if any(self._folder.iterdir()):
                raise DataError(
                    f"{self._folder} is not empty and has no {self._path.name}: choose another"
                )
            self._write(None)
            return None
        try:
            before = json.loads(self._path.read_bytes())
            self._compare(before["settings"])
            summary = before["summary"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"{self._path} is damaged: choose another folder") from None
        remove_partial(self._folder)
        return summary

    def complete(self, summary: Mapping[str, Any]) -> None:
        """Write down that the folder is complete."""
        self._write(summary)

    def _compare(self, before: Mapping[str, Any]) -> None:
        for name, now in self._settings.items():
            if before.get(name) != now:
                raise ConfigError(
                    f"{self._folder} was begun with {name} {before.get(name)}, not {now}: choose "
                    "another folder or delete it"
                )

    def _write(self, summary: Mapping[str, Any] | None) -> None:
        record = {"settings": self._settings, "summary": summary}
        write_whole(self._path, (json.dumps(record, indent=1) + "\n").encode())
