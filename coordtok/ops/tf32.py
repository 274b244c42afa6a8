"""Where float32 on a GPU may be TF32, which rounds what is multiplied to 10 bits: decided here.

Transformers that train or run in float32 never use it; they are asked for where bfloat16 is too
coarse. Of the perceptual networks, which are convolutions, training does, and scripts/evaluate.py
does not.
"""

import torch


def allow_for_training() -> None:
    """In convolutions alone: a loss may be rounded, and its network takes most of a step."""
    _allow(products=False, convolutions=True)


def forbid() -> None:
    """For scores, which are compared with those of other machines."""
    _allow(products=False, convolutions=False)


def _allow(products: bool, convolutions: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = products
    torch.backends.cudnn.allow_tf32 = convolutions
