"""Where files lie that can be had again at some cost."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$COORDTOK_CACHE, or ~/.cache/coordtok."""
    return Path(os.environ.get("COORDTOK_CACHE") or "~/.cache/coordtok").expanduser()
