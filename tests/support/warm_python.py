"""Python processes that start in milliseconds: forks of a parent that has imported torch.

Importing torch and DeepSpeed is three seconds of every process that trains, which is more than a
tiny run takes. `WarmPython` keeps one interpreter that has imported them and forks it for every
command. What it starts is a process like any other: of its own pid, environment, folder and output,
with the interpreter's own exit codes and tracebacks, to be signalled and killed.

What is told to an interpreter before it imports anything (OMP_NUM_THREADS, PYTHONHASHSEED, options
such as -X) is the parent's; a test of that starts an interpreter of its own.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

IMPORTS = (
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "coordtok.data.loader",
    "coordtok.evaluation",
    "coordtok.inference",
    "coordtok.pretrained.read",
    "coordtok.train.run",
    "data_prep.quickstart",
)
"""What the scripts import: torch, DeepSpeed, PyAV and all of coordtok."""

REQUEST_BYTES = 1 << 18


class WarmPython:
    """The parent. It ends when this process does."""

    def __init__(self, cwd: Path) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._parent = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd=cwd,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
            )
        atexit.register(self._end)

    def start(
        self,
        arguments: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str],
        stdout: IO[str],
        stderr: IO[str],
    ) -> "WarmProcess":
        """What `python ARGUMENTS` starts, with its output to two files."""
        status, theirs = os.pipe()
        request = {"arguments": arguments, "cwd": str(cwd), "environment": dict(environment)}
        files = [stdout.fileno(), stderr.fileno(), theirs]
        socket.send_fds(self._channel, [json.dumps(request).encode()], files)
        os.close(theirs)
        return WarmProcess(os.fdopen(status))

    def _end(self) -> None:
        """Wait for the parent, so that the time of its children counts as this process's."""
        self._channel.close()
        self._parent.wait()


class WarmProcess:
    """The part of `subprocess.Popen` that tests use."""

    def __init__(self, status: IO[str]) -> None:
        self._status = status
        self.pid = int(status.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, minus the number of the signal that ended it; None while it runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.returncode = int(self._status.readline())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self._status], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _serve(channel: socket.socket) -> list[str]:
    """Fork a child for every request. Only children return, with their arguments."""
    while True:
        message, files, _, _ = socket.recv_fds(channel, REQUEST_BYTES, maxfds=3)
        if not message:
            _reap()
            os._exit(0)
        if os.fork() == 0 and _tend(status=files[2]):
            channel.close()
            return _become(json.loads(message), *files)
        for file in files:
            os.close(file)
        _reap()


def _tend(status: int) -> bool:
    """Fork the child that a request asks for, and report its pid and exit code to `status`.
    True in the child; this process ends with it."""
    pid = os.fork()
    if pid == 0:
        return True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(status, b"%d\n" % pid)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, b"%d\n" % code)
    os._exit(0)


def _reap() -> None:
    """Bury the ended tenders, so that their processor time counts."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _become(request: dict[str, Any], stdout: int, stderr: int, status: int) -> list[str]:
    os.close(status)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    if stderr != stdout:
        os.close(stderr)
    # As an interpreter makes them: those of the parent know what it was started with.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    return request["arguments"]


def _run(arguments: list[str]) -> None:
    """As `python ARGUMENTS` does: a program after -c, a module after -m, or a script."""
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(arguments[1], "<string>", "exec"), vars(main))
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(arguments[0])
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    for _name in IMPORTS:
        importlib.import_module(_name)
    gc.freeze()
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))))
