"""Called by a script before anything imports deepspeed, which looks at the environment then."""

import os
import warnings

import torch


def quieten() -> None:
    """Keep out what torch and DeepSpeed say about each other, and a user can do nothing about."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
