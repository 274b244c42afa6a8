"""CoordTok: coordinate-based long-video tokenizers and the diffusion transformers on their latents.

Names here load lazily, so that planning and data preparation never import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordtok.data.webdataset_stage import decode_sample as decode_sample
    from coordtok.geometry.planes import Triplane as Triplane
    from coordtok.inference.video_files import load_video as load_video
    from coordtok.inference.video_files import save_video as save_video
    from coordtok.models.dit import TriplaneDiT as TriplaneDiT
    from coordtok.models.tokenizer import CoordTok as CoordTok
    from coordtok.pretrained.hub import push_to_hub as push_to_hub

__version__ = "0.1.0"

_HOMES = {
    "CoordTok": "coordtok.models.tokenizer",
    "Triplane": "coordtok.geometry.planes",
    "TriplaneDiT": "coordtok.models.dit",
    "decode_sample": "coordtok.data.webdataset_stage",
    "load_video": "coordtok.inference.video_files",
    "push_to_hub": "coordtok.pretrained.hub",
    "save_video": "coordtok.inference.video_files",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'coordtok' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
