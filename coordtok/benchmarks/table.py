"""What a benchmark hands back: a table for people, and the same figures in JSON with the machine
they were taken on."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from coordtok.errors import ConfigError


@dataclass(frozen=True)
class Report:
    """`figures` is what goes into the JSON, `text` what is printed."""

    figures: Mapping[str, Any]
    text: str


def machine_facts() -> dict[str, Any]:
    """What the figures depend on."""
    gpus = [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "devices": gpus or ["cpu"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def check_json_path(path: str | None) -> None:
    """Raise ConfigError now if a report could not be written to `path` later."""
    if path is None:
        return
    parent = Path(path).absolute().parent
    if Path(path).is_dir() or not os.access(parent, os.W_OK):
        raise ConfigError(f"--json {path} cannot be written; name a file in a folder that exists")


def write_json(path: str, command: str, report: Report) -> None:
    """One JSON object: the command, the machine, the figures."""
    stored = {"command": command, "machine": machine_facts(), **report.figures}
    try:
        Path(path).write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--json {path} cannot be written: {error.strerror}") from None


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells in aligned columns, the first to the left; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
