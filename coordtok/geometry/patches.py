"""Reading patches out of a video and writing them back, by integer index.

Shapes: B batch, N patches, T frames, H rows, W columns, 3 colours; P stands for pt, ph, pw.
"""

import torch

from coordtok.geometry.grid import PatchGrid, Size3


def _as_grid(video_BTHW3: torch.Tensor, patch: Size3) -> torch.Tensor:
    """A view (B, t, pt, y, ph, x, pw, 3) of the video; nothing is copied."""
    t, y, x = PatchGrid(_size(video_BTHW3), patch).shape
    split = video_BTHW3.unflatten(3, (x, -1)).unflatten(2, (y, -1)).unflatten(1, (t, -1))
    return split


def _size(video_BTHW3: torch.Tensor) -> Size3:
    frames, height, width = video_BTHW3.shape[1:4]
    return frames, height, width


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
    grid_BtptyphxpwC = _as_grid(video_BTHW3, patch)
    return grid_BtptyphxpwC.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4).flatten(1, 3)


def unpatchify(patches_BLP3: torch.Tensor, grid: PatchGrid) -> torch.Tensor:
    """Frames (B, F, H, W, 3) of whole slabs of patches (B, L, pt, ph, pw, 3), one after another,
    row-major within each."""
    slabs = patches_BLP3.unflatten(1, (-1, *grid.shape[1:]))
    return slabs.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)
