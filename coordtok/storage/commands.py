"""Files that a command typed by the user writes to its output, `{name}` standing for one."""

import os
import select
import shlex
from subprocess import TimeoutExpired

from coordtok.errors import DataError, one_line
from coordtok.storage.forward import ForwardStream
from coordtok.storage.names import is_plain

PIPE = "pipe:"
_EXIT_S = 5.0
_SILENCE_S = 60.0
"""Between two pieces of what a command writes: it may have to log in somewhere first."""


class CommandStore:
    """Files behind `pipe:COMMAND`, each read from its first byte.

    The command runs through webdataset's `gopen`, as webdataset's own `pipe:` URLs do. What
    replaces `{name}` may come from an index, so it must be plain, and is quoted for the shell.
    """

    def __init__(self, location: str) -> None:
        if "{name}" not in location:
            raise DataError(
                f"{location!r} does not say where the shard's name goes; write {{name}} in the "
                "command, as in 'pipe:aws s3 cp s3://bucket/shards/{name} -'"
            )
        self._location = location

    def describe(self, name: str) -> str:
        """The command for a file; DataError where its name is not fit for one."""
        if not is_plain(name):
            raise DataError(f"{name!r} is not passed to a command: it is no plain file name")
        return self._location.replace("{name}", shlex.quote(name))

    def open(self, name: str, start: int, stop: int) -> ForwardStream:
        """A file from its first byte, wherever `start` is; OSError where the command fails."""
        command = _Command(self.describe(name))
        return ForwardStream(command, command.close)

    def read(self, name: str, most: int) -> bytes:
        """All of a file of at most `most` bytes; OSError where the command fails or writes nothing,
        and `TooLarge`."""
        stream = self.open(name, 0, 0)
        try:
            content = stream.read_all(self.describe(name), most)
        finally:
            stream.close()
        if not content:
            raise OSError("the command wrote nothing")
        return content


class _Command:
    """A running `pipe:` command."""

    def __init__(self, url: str) -> None:
        # Imported here: it costs more than a second and brings torch.
        try:
            from webdataset.gopen import gopen, set_options
        except ImportError as error:
            raise DataError(
                f"{url!r} cannot be run ({one_line(error)}): pip install 'coordtok[train]'"
            ) from None
        self._pipe = gopen(url)
        set_options(self._pipe, timeout=_EXIT_S)

    def read(self, size: int) -> bytes:
        """At most `size` bytes, none at the end; OSError where the command failed, or wrote nothing
        for `_SILENCE_S`."""
        output = self._pipe.stream.fileno()
        if not select.select([output], [], [], _SILENCE_S)[0]:
            raise OSError(f"the command wrote nothing for {_SILENCE_S:g} s")
        try:
            content = os.read(output, size)
            if not content:
                self._pipe.proc.wait(_EXIT_S)
                self._pipe.check_status()
        except (OSError, TimeoutExpired):
            status = self._pipe.proc.returncode
            raise OSError(f"the command failed with exit status {status}") from None
        return content

    def close(self) -> None:
        """End it, whether or not it has written everything."""
        self._pipe.stream.close()
        try:
            self._pipe.proc.wait(_EXIT_S)
        except TimeoutExpired:
            self._pipe.proc.kill()
