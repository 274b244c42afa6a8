"""Called by a script before anything imports deepspeed, which looks at the environment then."""

import os
import warnings
from importlib.util import find_spec

import torch

from coordtok.errors import ConfigError


def quieten() -> None:
    """Keep out what torch and DeepSpeed say about each other, and a user can do nothing about.

    Raises:
        ConfigError: DeepSpeed is not installed.
    """
    if find_spec("deepspeed") is None:
        raise ConfigError(
            "deepspeed is not installed: what only uses an export does without it, training and "
            "reading checkpoints need pip install 'coordtok[train]'"
        )
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
