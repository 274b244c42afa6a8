"""What an output folder is being filled with, written down before anything else in it.

The command that is run again after it was killed goes on only if it would do the same.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordtok.errors import ConfigError, DataError
from coordtok.storage.files import remove_partial, write_whole
from coordtok.storage.json_files import read_json


class Claim:
    """The file NAME in a folder: the settings of its contents, and when they are complete a
    summary."""

    def __init__(self, folder: Path, name: str, settings: Mapping[str, Any]) -> None:
        """settings: plain JSON."""
        self._folder, self._path = folder, folder / name
        self._settings = dict(settings)
        self._inputs: str | None = None

    def take(self, inputs: str | None = None) -> dict[str, Any] | None:
        """Claim the folder for these settings, or go on with it.

        Args:
            inputs: a hash of what the contents are made from, where that may change meanwhile.

        Returns the summary of a complete folder; raises as `check`, or a DataError where the inputs
        changed or nothing can be written.
        """
        begun, summary = self.check()
        if not begun:
            self._inputs = inputs
            self._write(None)
        elif inputs != self._inputs:
            raise DataError(
                f"what {self._folder} is made from changed since it was begun: delete that folder "
                "or choose another"
            )
        return summary

    def check(self) -> tuple[bool, dict[str, Any] | None]:
        """Whether the folder was begun with these settings, and its summary where it is complete;
        an empty one is not claimed. What a killed command left half-written is removed.

        Raises:
            ConfigError: it was begun with other settings.
            DataError: it holds something else.
        """
        remove_partial(self._folder, self._path.name)
        if not self._path.exists():
            if any(self._folder.iterdir()):
                raise DataError(
                    f"{self._folder} is not empty and has no {self._path.name}: choose another"
                )
            return False, None
        try:
            before = read_json(self._path)
            self._compare(before["settings"])
            summary, self._inputs = before["summary"], before.get("inputs")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise DataError(f"{self._path} is damaged: choose another folder") from None
        remove_partial(self._folder)
        return True, summary

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
        inputs = {} if self._inputs is None else {"inputs": self._inputs}
        record = {"settings": self._settings, **inputs, "summary": summary}
        write_whole(self._path, (json.dumps(record, indent=1) + "\n").encode())
