"""Reading patches out of a video and writing them back, by integer index.

Shapes: B batch, N patches, T frames, H rows, W columns, 3 colours; P stands for pt, ph, pw.
"""

import torch
from einops import rearrange

from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.latent import Size3


def _as_grid(video_BTHW3: torch.Tensor, patch: Size3) -> torch.Tensor:
    """A view (B, t, pt, y, ph, x, pw, 3) of the video; nothing is copied."""
    pt, ph, pw = patch
    pattern = "b (t pt) (y ph) (x pw) c -> b t pt y ph x pw c"
    return rearrange(video_BTHW3, pattern, pt=pt, ph=ph, pw=pw)


def gather(video_BTHW3: torch.Tensor, index_BN3: torch.Tensor, patch: Size3) -> torch.Tensor:
    """The pixels of the indexed patches, (B, N, pt, ph, pw, 3), in the video's dtype.

    Copies only what is asked for: uint8 videos are best converted after this.
    """
    t, y, x = index_BN3.unbind(-1)
    batch = torch.arange(len(video_BTHW3), device=index_BN3.device)[:, None]
    return _as_grid(video_BTHW3, patch)[batch, t, :, y, :, x]


def write(video_BTHW3: torch.Tensor, patches_BNP3: torch.Tensor, index_BN3: torch.Tensor) -> None:
    """Write patches (B, N, pt, ph, pw, 3) into a video that has room for them, in place."""
    pt, ph, pw = patches_BNP3.shape[2:5]
    t, y, x = index_BN3.unbind(-1)
    batch = torch.arange(len(video_BTHW3), device=index_BN3.device)[:, None]
    _as_grid(video_BTHW3, (pt, ph, pw))[batch, t, :, y, :, x] = patches_BNP3


def patchify(video_BTHW3: torch.Tensor, patch: Size3) -> torch.Tensor:
    """All patches in (t, y, x) order, flattened: (B, L, pt * ph * pw * 3)."""
    pt, ph, pw = patch
    pattern = "b (t pt) (y ph) (x pw) c -> b (t y x) (pt ph pw c)"
    return rearrange(video_BTHW3, pattern, pt=pt, ph=ph, pw=pw)


def unpatchify(patches_BLP3: torch.Tensor, grid: PatchGrid) -> torch.Tensor:
    """Frames (B, F, H, W, 3) of whole slabs of patches (B, L, pt, ph, pw, 3), one after another,
    row-major within each."""
    _, rows, columns = grid.shape
    pattern = "b (t y x) pt ph pw c -> b (t pt) (y ph) (x pw) c"
    return rearrange(patches_BLP3, pattern, y=rows, x=columns)
