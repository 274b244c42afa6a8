"""Reading patches out of a video and writing them back, by integer index.

Shapes: B batch, N patches, T frames, H rows, W columns, 3 colours; P stands for pt, ph, pw.
"""

import torch
from einops import rearrange

from coordtok.geometry.grid import PatchGrid
from coordtok.geometry.latent import Size3


def _rows(video_BTHW3: torch.Tensor, index_BN3: torch.Tensor, patch: Size3) -> torch.Tensor:
    """Which rows of pixels the patches have, (B * N * pt * ph,) int64, counted in rows of pw pixels
    through all videos."""
    (pt, ph, pw), (frames, height, width) = patch, video_BTHW3.shape[1:4]
    count = torch.arange(len(index_BN3), device=index_BN3.device)[:, None]
    t, y, x = index_BN3.unbind(-1)
    first_BN = ((count * frames + t * pt) * height + y * ph) * (width // pw) + x
    depth, row = (torch.arange(each, device=index_BN3.device) for each in (pt, ph))
    within = (depth[:, None] * height + row) * (width // pw)
    return (first_BN[..., None, None] + within).flatten()


def gather(video_BTHW3: torch.Tensor, index_BN3: torch.Tensor, patch: Size3) -> torch.Tensor:
    """The pixels of the indexed patches, (B, N, pt, ph, pw, 3), in the video's dtype.

    Whole rows of patches are copied, and nothing else: pixel by pixel it takes eight times as long.
    uint8 videos are best converted after this.
    """
    rows = video_BTHW3.reshape(-1, patch[2] * 3)
    patches = rows.index_select(0, _rows(video_BTHW3, index_BN3, patch))
    return patches.view(*index_BN3.shape[:2], *patch, 3)


def write(video_BTHW3: torch.Tensor, patches_BNP3: torch.Tensor, index_BN3: torch.Tensor) -> None:
    """Write patches (B, N, pt, ph, pw, 3) into a contiguous video that has room for them, in
    place."""
    pt, ph, pw = patches_BNP3.shape[2:5]
    number = _rows(video_BTHW3, index_BN3, (pt, ph, pw))
    video_BTHW3.view(-1, pw * 3).index_copy_(0, number, patches_BNP3.reshape(-1, pw * 3))


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
